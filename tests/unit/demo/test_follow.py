"""How the demo waits: what it shows, when it stops, and what it says when something fails."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from tools.console import StepError
from tools.demo import follow
from tools.demo.kubectl import Object

Change = Callable[[int], Object]


def item(name: str, ready: str = "False", **conditions: str) -> Object:
    states = {"Ready": ready, **conditions}
    return {
        "metadata": {"name": name, "generation": 1},
        "status": {
            "phase": "Succeeded" if ready == "True" else "Training",
            "observedGeneration": 1,
            "conditions": [
                {"type": kind, "status": status, "reason": "Because", "message": f"{name} says {kind.lower()}"}
                for kind, status in states.items()
            ],
        },
    }


class Cluster:
    """Objects that are another at every look."""

    name = "demo"

    def __init__(self, **looks: list[Object | None]) -> None:
        self._looks = {name.replace("_", "-"): iter(states) for name, states in looks.items()}

    def get(self, _kind: str, name: str) -> Object | None:
        return next(self._looks[name])

    def last_words(self, selector: str) -> str:
        return f"log of {selector}"


@pytest.fixture(autouse=True)
def _nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def until_all_ready(cluster: Cluster, *names: str, seconds: float = 60) -> list[Object]:
    fake: Any = cluster
    console = Console(force_terminal=False)
    return follow.until_all_ready(fake, [("finetunejob", name) for name in names], seconds, console)


def test_each_is_followed_until_it_is_ready_and_no_longer(capsys: pytest.CaptureFixture[str]) -> None:
    done = item("first", "True")
    cluster = Cluster(first=[None, item("first"), done], second=[None, None, None, item("second", "True")])
    assert [found["metadata"]["name"] for found in until_all_ready(cluster, "first", "second")] == ["first", "second"]
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said] == [
        ["first", "Pending"],
        ["second", "Pending"],
        ["first", "Training"],
        ["first", "Succeeded"],
        ["second", "Succeeded"],
    ]


@pytest.mark.parametrize("kind", ["Failed", "Stalled"])
def test_a_failure_ends_the_wait_with_reason_log_and_next_step(kind: str) -> None:
    cluster = Cluster(first=[item("first", **{kind: "True"})])
    with pytest.raises(StepError) as failed:
        until_all_ready(cluster, "first")
    message = str(failed.value)
    assert f"finetunejob first failed: Because: first says {kind.lower()}" in message
    assert "log of finetune.dev/name=first" in message
    assert "describe finetunejob first" in message


def test_a_failure_of_an_earlier_spec_is_not_this_ones() -> None:
    old = item("first", Failed="True")
    old["metadata"]["generation"] = 2
    cluster = Cluster(first=[old, item("first", "True")])
    assert until_all_ready(cluster, "first")


def test_a_deadline_is_kept() -> None:
    with pytest.raises(StepError, match="not ready after 0 s: Because: first says ready"):
        until_all_ready(Cluster(first=[item("first")] * 3), "first", seconds=0)
