"""The demo's pure parts: its questions, tables, times, and what it puts into the base and the data."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tools.demo import ask, make_base, tables, timings
from tools.demo.__main__ import QUESTIONS, questions_from
from tools.demo.kubectl import Object


def drawn(table: Table) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def score(system: str, value: float, metric: str = "ExactMatch") -> Object:
    return {"metric": metric, "system": system, "value": value, "low": value / 2, "high": 1.0, "rows": 221}


JOB: Object = {
    "metadata": {"name": "namer", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "status": {
        "evaluation": [
            score("Tuned", 0.84),
            score("ZeroShot", 0.0),
            score("FewShot", 0.125),
            score("Tuned", 0.3, metric="EvalLoss"),
        ],
        "timings": [
            {"stage": "Loading", "seconds": 2.0},
            {"stage": "FirstStep", "seconds": 1.0},
            {"stage": "Training", "seconds": 80.0},
            {"stage": "Evaluating", "seconds": 9.0},
        ],
    },
}


def test_the_table_names_rows_majority_and_intervals() -> None:
    text = drawn(tables.accuracy_table(JOB, 0.195))
    for expected in ("221 held-out rows", "19.5%", "84.0%", "42.0% to 100.0%", "0.0%", "12.5%"):
        assert expected in text


def test_brackets_in_questions_and_answers_are_shown() -> None:
    text = drawn(tables.answers_table([tables.Answer("[start] of [/it]", "xml", "[/red]", "[bold]xml")]))
    for expected in ("[start] of [/it]", "[/red]", "[bold]xml"):
        assert expected in text


def ready(moment: str) -> Object:
    return {"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": moment}]}}


class Pods:
    """A namespace with training pods."""

    def __init__(self, *pods: Object) -> None:
        self._pods = list(pods)

    def find(self, _kind: str, _selector: str) -> list[Object]:
        return self._pods


def pod(created: str, started: str) -> Object:
    state = {"state": {"terminated": {"startedAt": started}}}
    return {"metadata": {"creationTimestamp": created}, "status": {"containerStatuses": [state]}}


def test_times_are_told_apart_by_what_was_waited_for() -> None:
    pods: Any = Pods(pod("2026-01-01T00:01:05Z", "2026-01-01T00:01:08Z"))
    inputs = [ready("2026-01-01T00:00:10Z"), ready("2026-01-01T00:01:00Z")]
    assert timings.of_job(pods, JOB, inputs) == {
        "apply to inputs ready": 60.0,
        "inputs ready to pod": 5.0,
        "pod to first step": 6.0,
        "training": 80.0,
        "evaluation": 9.0,
    }


def test_a_run_that_was_used_again_has_no_pod() -> None:
    pods: Any = Pods()
    assert timings.of_job(pods, JOB, []) == {"training": 80.0, "evaluation": 9.0}


def test_questions_are_of_different_classes_and_long_enough() -> None:
    rows = [{"text": "short", "label": "a"}]
    rows += [{"text": f"{label}{number} " * 20, "label": label} for label in "abcd" for number in range(3)]
    questions = questions_from(rows)
    assert len(questions) == QUESTIONS == len({label for _, label in questions})
    assert all(len(text) > len("short") for text, _ in questions)


def test_the_curl_line_survives_a_shell() -> None:
    text = 'it\'s "quoted"\n$HOME `x`'
    words = shlex.split(ask.curl_line("http://10.0.0.1:8080/v1", "namer", text))
    assert words[:3] == ["curl", "-s", "http://10.0.0.1:8080/v1/chat/completions"]
    assert json.loads(words[-1])["messages"][0]["content"] == text


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library of three files, one of them a test's."""
    said = "Does a thing that is described here in more than sixty characters, as it must be."
    files = {
        "logging/handlers.py": f'class Handler(Base):\n    def emit(self, record):\n        """{said} Logging it."""\n',
        "json/__init__.py": f'def dumps(value):\n    """{said}"""\ndef loads(value):\n    """short"""\n',
        "unittest/test/case.py": f'def check():\n    """{said} Tested."""\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_docstrings_are_read_without_tests_and_without_their_label(library: Path) -> None:
    found = make_base.docstrings(library)
    assert [row.module for row in found] == ["json", "logging"]
    assert found[1].text.startswith("def Handler.emit(record)\n")
    assert "logging" not in found[1].text.lower()
    assert make_base.MASK in found[1].text


def test_no_label_is_left_in_any_row() -> None:
    for label in make_base.LABELS:
        assert label not in make_base.masked(f"{label}.{label.title()}Server {label.upper()}", label).lower()


def test_rows_are_written_in_the_same_order_every_time(tmp_path: Path) -> None:
    rows = [{"text": str(number)} for number in range(50)]
    make_base.write_rows(list(rows), tmp_path / "a")
    make_base.write_rows(list(rows), tmp_path / "b")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    assert [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()] != rows
