"""Exit codes and the lines that go with them."""

from collections.abc import Callable, Iterator
from typing import Self

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from finetune_cli import __main__ as cli
from finetune_cli import watch
from finetune_cli.commands import status
from finetune_cli.errors import CliError, UnreachableError
from finetune_cli.facts import Object
from finetune_cli.kinds import JOBS, RunKind
from tests.unit.cli.jobs import condition, failed_job, gate_failed_job, make_job, ready_job


class FakeCluster:
    """Answers with the jobs it was given, one per look; the last one stays."""

    namespace = "team"

    def __init__(self, *looks: Object | CliError) -> None:
        self.looks = list(looks)
        self.asked: tuple[RunKind, str, int | None] | None = None

    @property
    def objects(self) -> Self:
        return self

    def get(self, _plural: str, _name: str) -> Object:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, CliError):
            raise look
        return look

    def all_of(self, plural: str) -> list[Object]:
        return [look for look in self.looks if plural == JOBS and not isinstance(look, CliError)]

    def working_pod(self, kind: RunKind, name: str, attempt: int | None) -> str:
        self.asked = (kind, name, attempt)
        return f"{name}-pod"

    def log(self, pod: str, follow: bool) -> Iterator[bytes]:
        yield b"loading\nstep "
        yield f"1 of {pod}, follow {follow}\n".encode()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping moves the clock, and takes no time."""
    time = [0.0]
    until_ended = watch.until_ended

    def ended(look: Callable[[], Object], console: Console, timeout: float | None) -> Object:
        def sleep(seconds: float) -> None:
            time[0] += seconds

        return until_ended(look, console, timeout, clock=lambda: time[0], sleep=sleep)

    monkeypatch.setattr(watch, "until_ended", ended)


def waiting_job(reason: str, message: str) -> Object:
    return make_job(
        phase="WaitingForDataset", progress=None, conditions=[condition("Ready", False, reason=reason, message=message)]
    )


def run(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster, *arguments: str) -> Result:
    for module in (cli, status):
        monkeypatch.setattr(module, "connect", lambda *_: cluster)
    return CliRunner().invoke(cli.app, arguments)


@pytest.mark.parametrize(
    ("looks", "exit_code", "words"),
    [
        ([make_job(), ready_job()], 0, "sha256:460046"),
        (
            [make_job(), failed_job()],
            1,
            "ValueError: no rows left (`kubectl finetune status namer` and `kubectl finetune logs namer` tell more)",
        ),
        (
            [make_job(conditions=[condition("Stalled", reason="ModelNotFound", message="no such repository")])],
            1,
            "ModelNotFound: no such repository (`kubectl finetune status namer` and `kubectl finetune events namer` ",
        ),
        (
            [make_job(), gate_failed_job()],
            3,
            "error: namer: GateFailed: ExactMatch 0.75 [0.6, 0.9] is not atLeast 0.9",
        ),
        ([make_job(), UnreachableError("away"), ready_job()], 0, "sha256:460046"),
        ([make_job(), UnreachableError("the cluster does not answer")], 1, "error: the cluster does not answer"),
        ([UnreachableError("the cluster does not answer")], 1, "error: the cluster does not answer"),
        ([make_job(), CliError("no FineTuneJob 'namer'")], 1, "error: no FineTuneJob 'namer'"),
        (
            [{**ready_job(), "metadata": {"name": "namer", "generation": 2}}],
            1,
            "error: namer: not done within 10m; the operator has not seen its newest spec yet",
        ),
        ([make_job(conditions=[condition("Running")])], 1, "error: namer: not done within 10m; it goes on by itself"),
        (
            [waiting_job("DatasetNotReady", "Dataset 'rows' has no revision yet: BadRow: line 2. Mend the line")],
            1,
            "when there is what it waits for: DatasetNotReady: Dataset 'rows' has no revision yet: BadRow: line 2.",
        ),
        (
            [make_job(phase="Pending", progress=None, conditions=[])],
            1,
            "it is Pending, and goes on when there is what it waits for: waiting for the operator to see it",
        ),
    ],
    ids=[
        "ready",
        "failed",
        "stalled",
        "gate failed",
        "short outage",
        "long outage",
        "no cluster",
        "deleted",
        "ready before an edit",
        "still training",
        "a broken dataset",
        "no operator",
    ],
)
def test_watch(monkeypatch: pytest.MonkeyPatch, looks: list[Object | CliError], exit_code: int, words: str) -> None:
    result = run(monkeypatch, FakeCluster(*looks), "watch", "namer", "--timeout", "10m")
    assert (result.exit_code, result.exception if exit_code == 0 else None) == (exit_code, None)
    assert words in result.output


def test_watch_says_a_line_every_ten_seconds_and_at_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [make_job()] * 25 + [make_job(phase="Evaluating"), ready_job()]
    lines = run(monkeypatch, FakeCluster(*looks), "watch", "namer").stdout.splitlines()
    assert [line.split()[1] for line in lines[:5]] == ["Training", "Training", "Training", "Evaluating", "Succeeded"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["watch"], "Missing argument"),
        (["watch", "namer", "--timeout", "soon"], "'soon' is not a duration; write 90s, 10m or 2h"),
        (["logs", "namer", "--attempt", "0"], "--attempt"),
        (["train"], "No such command"),
    ],
    ids=["no name", "bad timeout", "bad attempt", "unknown command"],
)
def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    result = run(monkeypatch, FakeCluster(make_job()), *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_status_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, FakeCluster(make_job(), ready_job()), "status")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("NAME")


def test_status_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, FakeCluster(), "status")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "",
        "No FineTuneJobs, BatchInferences or ModelDeployments in namespace team.\n",
    )


def test_status_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, FakeCluster(ready_job()), "status", "namer")
    assert result.exit_code == 0
    assert "Evaluation" in result.stdout


def test_a_gate_is_shown_rule_by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("status", "watch"):
        output = run(monkeypatch, FakeCluster(gate_failed_job()), command, "namer").stdout
        assert "✗   ExactMatch 0.75 [0.6, 0.9] is not atLeast 0.9" in output
        assert "✓   EvalLoss 0.5 [0.4, 0.6] is atMost 1" in output
        assert "-   EvalLoss notWorseThan Previous: there is no previous artifact yet" in output
        assert "kept, not served: sha256:bad pvc://bad" in output
        assert "an earlier one" in output


def test_errors_are_one_line_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, FakeCluster(CliError("not\x1b[2Jfound")), "status", "namer")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: not?[2Jfound\n")


def test_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(make_job())
    result = run(monkeypatch, cluster, "logs", "namer", "--attempt", "2", "--follow")
    assert (result.exit_code, result.stdout) == (0, "loading\nstep 1 of namer-pod, follow True\n")
    assert cluster.asked == (RunKind.JOB, "namer", 2)
