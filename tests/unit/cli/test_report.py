"""A job's report with its gate, and comparing jobs."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from finetune_cli import __main__ as cli
from finetune_cli import report_page, stored
from finetune_cli.compare import comparison
from finetune_cli.errors import CliError
from finetune_cli.facts import Object
from finetune_contract.paths import LOG_FILE, attempt_name, attempt_path, evaluation_path
from finetune_store.__main__ import main as store_command
from finetune_store.store import Store
from tests.unit.cli.jobs import condition, gate_failed_job, ready_job, score
from tests.unit.cli.test_stored import prepare_job

KEY = "a" * 64
PAGE = b"<html>\xc3\xa4 " + report_page.MARK + report_page.COST_MARK + b"</html>"


def command(job: Object, file: str) -> list[str]:
    """What the reader's pod of a job would run, after `python -m finetune_store`."""
    pod = stored.reader(job, prepare_job(), stored._reference(job), file)
    found: list[str] = pod["spec"]["containers"][0]["command"][3:]
    return found


def job_with_report() -> Object:
    job = ready_job()
    job["kind"] = "FineTuneJob"
    job["metadata"].setdefault("uid", "u")
    job["status"]["artifact"] |= {"run": KEY, "uri": "pvc://claim/artifacts/x"}
    return job


@pytest.mark.parametrize("plan", [{"claim": "claim"}, {"training": {"claim": "claim"}}], ids=["trained", "measured"])
def test_a_jobs_report_is_that_of_its_run(plan: Object, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path, "claim").record(KEY, "report.html", PAGE.decode())
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    job, rest = job_with_report(), [f"--termination-log={tmp_path / 'log'}", f"--plan={tmp_path / 'plan.json'}"]
    assert store_command([*command(job, "report.html"), f"--store={tmp_path}", *rest]) == 0
    assert stored.unpacked(capfd.readouterr().out) == PAGE
    for missing in ("other.html", "../../../etc/passwd"):
        assert store_command([*command(job, missing), f"--store={tmp_path}", *rest]) != 0
        with pytest.raises(CliError, match="could not be read"):
            stored.unpacked(capfd.readouterr().out)


def test_the_report_is_written_with_the_gates_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = job_with_report()
    job["status"]["conditions"].append(condition("GatePassed", status=False, message="ExactMatch <b>"))
    job["status"]["gate"] = {"rules": [{"outcome": "Failed", "message": "ExactMatch 0.2 is not at least 0.9 <b>"}]}
    objects = SimpleNamespace(get=lambda _plural, _name: job)
    monkeypatch.setattr(cli, "connect", lambda *_: SimpleNamespace(objects=objects))
    monkeypatch.setattr(stored, "fetch", lambda *_: PAGE)
    answer = CliRunner().invoke(cli.app, ["report", "job", "namer", "-o", str(tmp_path / "r.html")])
    assert answer.exit_code == 0, answer.output
    text = (tmp_path / "r.html").read_text()
    assert "<h2>Gate</h2>" in text
    assert "Because" in text
    assert "ExactMatch 0.2 is not at least 0.9 &lt;b&gt;" in text
    assert "No cost is known" in text


def test_the_report_has_what_the_run_has_cost() -> None:
    job = job_with_report()
    job["status"] |= {
        "cost": {"gpuHours": 12.5, "lostGpuHours": 0.4, "amount": 31.25, "currency": "EUR"},
        "speed": {"costPerMillionTokens": 0.21, "breakEvenTokens": 11_200_000, "currency": "<EUR>"},
    }
    text = report_page.with_status(PAGE, job).decode()
    assert "12.5 GPU-hours in all attempts, 0.4 of them lost" in text
    assert "31.25 EUR" in text
    assert "0.21 &lt;EUR&gt; at the measured speed" in text
    assert "after 11,200,000 tokens" in text
    job["status"]["speed"].pop("breakEvenTokens")
    assert "not against the API price" in report_page.with_status(PAGE, job).decode()


class Shelf:
    """A cluster whose reader pods really read a store."""

    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self.capfd, self.logs = root, capfd, list[str]()
        self.states: list[Object] = []
        (root / "plan.json").write_text(json.dumps({"claim": "claim"}))

    def jobs_of_operator(self) -> list[Object]:
        return [prepare_job()]

    def create_pod(self, pod: Object) -> str:
        command = pod["spec"]["containers"][0]["command"][3:]
        rest = [f"--store={self.root}", f"--termination-log={self.root / 'log'}", f"--plan={self.root / 'plan.json'}"]
        store_command([*command, *rest])
        self.logs.append(self.capfd.readouterr().out)
        return "reader"

    def pod(self, _name: str) -> Object:
        return self.states.pop(0) if self.states else {"status": {"phase": "Succeeded"}}

    def log(self, _name: str) -> list[bytes]:
        return [self.logs[-1].encode()]

    def delete_pod(self, _name: str) -> None:
        """It is gone anyway."""


IMAGE_GONE = {"reason": "ImagePullBackOff", "message": "Back-off pulling image registry/trainer:1"}
NO_ROOM = {"reason": "Unschedulable", "message": "0/1 nodes are available"}


@pytest.mark.parametrize(
    ("states", "told", "error"),
    [
        (
            [{"containerStatuses": [{"state": {"waiting": IMAGE_GONE}}]}],
            "",
            "pod reader cannot start: ImagePullBackOff: Back-off pulling image registry/trainer:1; it is the image of",
        ),
        (
            [{"conditions": [NO_ROOM]}] * 2,
            "pod reader waits: Unschedulable: 0/1 nodes are available\n",
            "",
        ),
    ],
    ids=["the image is gone", "no room, then room"],
)
def test_a_reader_that_does_not_start_says_what_it_waits_for(
    states: list[Object],
    told: str,
    error: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "_QUIET", 0)
    monkeypatch.setattr(stored, "_PAUSE", 0.01)
    Store(tmp_path, "claim").record(KEY, "report.html", "of a pod that waited")
    cluster = Shelf(tmp_path, capfd)
    cluster.states = [{"status": {"phase": "Pending", **state}} for state in states]
    if error:
        with pytest.raises(CliError, match=error):
            stored.fetch(cluster, job_with_report(), "report.html")  # type: ignore[arg-type]
    else:
        assert stored.fetch(cluster, job_with_report(), "report.html") == b"of a pod that waited"  # type: ignore[arg-type]
    assert capfd.readouterr().err == told


def test_a_report_is_that_of_the_artifact_and_of_what_was_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, cluster, job = Store(tmp_path, "claim"), Shelf(tmp_path, capfd), job_with_report()
    job["status"]["evaluationKey"] = "k1"
    store.record(KEY, "report.html", "of another pod")
    assert stored.fetch(cluster, job, "report.html") == b"of another pod"  # type: ignore[arg-type]
    digest = job["status"]["artifact"]["digest"]
    store.record(KEY, f"{evaluation_path(digest, 'k1')}/report.html", "its own")
    assert stored.fetch(cluster, job, "report.html") == b"its own"  # type: ignore[arg-type]


def test_the_report_of_what_failed_its_gate_is_not_that_of_the_artifact_before_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The gate's verdict, which is written into the page, is on what the present run has made."""
    store, cluster, job = Store(tmp_path, "claim"), Shelf(tmp_path, capfd), gate_failed_job(evaluationKey="k1")
    job["kind"] = "FineTuneJob"
    job["metadata"]["uid"] = "u"
    store.record("e" * 64, f"{evaluation_path('sha256:460046', 'k1')}/report.html", "of the artifact before it")
    store.record(KEY, f"{evaluation_path('sha256:bad', 'k1')}/report.html", "of the present run")
    job["status"]["runs"][0]["artifact"] |= {"run": KEY, "uri": "pvc://claim/artifacts/bad"}
    assert stored.fetch(cluster, job, "report.html") == b"of the present run"  # type: ignore[arg-type]
    job["status"].pop("artifact")  # its first run
    assert stored.fetch(cluster, job, "report.html") == b"of the present run"  # type: ignore[arg-type]


def test_the_log_of_an_attempt_whose_pod_is_gone_comes_from_the_store(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = job_with_report()
    job["status"] |= {"run": {"key": KEY, "attempt": 2}, "attempts": [{"number": 1}, {"number": 2}]}
    Store(tmp_path, "claim").record(KEY, "attempts/2/log.txt", "the second")
    assert stored.fetch_log(Shelf(tmp_path, capfd), job, None) == b"the second"  # type: ignore[arg-type]
    assert stored.has_log(job, None)
    assert stored.has_log(job, 1)
    assert not stored.has_log(job, 3)


def test_the_log_of_a_batch_is_that_of_its_own_object_and_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Others that ask the same share the run's directory; attempts of earlier runs are in the list, too."""
    run = {"key": KEY, "attempt": 1, "base": {"digest": "sha256:x", "uri": "pvc://claim/models/x"}}
    ended = [{"run": "b" * 12, "number": 1}, {"run": "b" * 12, "number": 2}, {"run": KEY[:12], "number": 1}]
    batch: Object = {
        "kind": "BatchInference",
        "metadata": {"name": "label", "uid": "u1"},
        "status": {"run": run, "attempts": ended},
    }
    store = Store(tmp_path, "claim")
    store.record(KEY, attempt_path(attempt_name("u1", 1), LOG_FILE), "its own")
    store.record(KEY, attempt_path(attempt_name("u2", 1), LOG_FILE), "of another that asks the same")
    assert stored.fetch_log(Shelf(tmp_path, capfd), batch, None) == b"its own"  # type: ignore[arg-type]
    assert stored.has_log(batch, 1)
    assert not stored.has_log(batch, 2), "an earlier run's"


def text_of(*jobs: Object, baselines: list[str] | None = None, **options: Any) -> str:
    console = Console(width=160, file=io.StringIO(), highlight=False, **options)
    with console.capture() as captured:
        console.print(comparison(list(jobs), baselines))
    return captured.get()


def other_job(*scores: Object) -> Object:
    job = ready_job(evaluation=list(scores))
    job["metadata"]["name"] = "other"
    return job


def test_jobs_are_compared_by_what_was_measured() -> None:
    one, two = ready_job(), other_job(score("Tuned", "ExactMatch", 0.5, 0.4, 0.6), score("Tuned", "MacroF1", 0.25))
    two["status"].setdefault("run", {})["inputs"] = {"dataset": "sha256:other"}
    text = text_of(one, two)
    assert "0.500 [0.400, 0.600]" in text
    assert "MacroF1" in text
    assert "different dataset revisions" in text
    page = report_page.page_of(comparison([one, two]), "<x>", 2)
    assert "<title>&lt;x&gt;" in page
    assert "0.250" in page


LEAD = {"difference": 0.3, "differenceLow": 0.2, "differenceHigh": 0.41, "pValue": 0.001}


def test_jobs_are_compared_by_their_lead_over_each_baseline() -> None:
    one = ready_job(
        evaluation=[
            score("Tuned", "ExactMatch", 0.9, 0.8, 0.95),
            {**score("ZeroShot", "ExactMatch", 0.6), **LEAD},
            {**score("gpt", "ExactMatch", 0.95), "difference": -0.05, "pValue": 0.21},
        ]
    )
    two = other_job(score("Tuned", "ExactMatch", 0.5, 0.4, 0.6), score("ZeroShot", "ExactMatch", 0.45))
    rows = [line.split("  ") for line in text_of(one, two).splitlines()]
    cells = {each[0] or f"  {each[1]}": [cell.strip() for cell in each[2:] if cell.strip()] for each in rows}
    assert cells["ExactMatch"] == ["0.900 [0.800, 0.950]", "0.500 [0.400, 0.600]"]
    # Of an older trainer there is a difference, but neither an interval nor a test.
    assert cells["  less ZeroShot"] == ["+0.300 [+0.200, +0.410] p ≤ 0.001", "+0.050"]
    assert cells["  less gpt"] == ["-0.050 p = 0.210", "-"]
    chosen = text_of(one, two, baselines=["gpt"])
    assert "less gpt" in chosen
    assert "ZeroShot" not in chosen
    page = report_page.page_of(comparison([one] * 6), "many", 6)
    (row,) = (line for line in page.splitlines() if "less ZeroShot" in line)
    assert row.count("+0.300 [+0.200, +0.410] p ≤ 0.001") == 6  # nothing is folded


@pytest.mark.parametrize(
    ("metric", "other", "style"),
    [
        ("ExactMatch", (0.5, 0.4, 0.6), "\x1b[1;32m0.900"),
        ("ExactMatch", (0.85, 0.75, 0.9), None),
        ("EvalLoss", (0.5, 0.4, 0.6), "\x1b[1;32m0.500"),
        ("ExactMatch", (0.5, None, None), None),
    ],
    ids=["apart", "overlapping", "a loss", "no interval"],
)
def test_only_figures_whose_intervals_lie_apart_are_marked(
    metric: str, other: tuple[float, float | None, float | None], style: str | None
) -> None:
    one, two = ready_job(evaluation=[score("Tuned", metric, 0.9, 0.8, 0.95)]), other_job(score("Tuned", metric, *other))
    drawn = text_of(one, two, force_terminal=True, color_system="standard")
    assert drawn.count("\x1b[1;32m0") == (1 if style else 0)
    assert style is None or style in drawn


def test_a_lead_is_green_a_lag_is_red_and_what_may_be_an_accident_is_neither() -> None:
    scores = [{**score(f"b{at}", "ExactMatch", 0.5), "difference": lead, "pValue": p_value}
              for at, (lead, p_value) in enumerate([(0.3, 0.001), (-0.3, 0.02), (0.1, 0.3)])]  # fmt: skip
    job = ready_job(evaluation=[score("Tuned", "ExactMatch", 0.8), *scores])
    drawn = text_of(job, force_terminal=True, color_system="standard")
    assert "\x1b[32m+0.300 p ≤ 0.001" in drawn
    assert "\x1b[31m-0.300 p = 0.020" in drawn
    assert "m+0.100" not in drawn
