"""Experiment trackers: a real MLflow server, the real W&B library offline; none of them ever holds up a training."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.results import Progress, WarningReason
from finetune_contract.tracking import TrackedRun, Tracker
from finetune_contract.training import TrainingPlan
from finetune_trainer.progress import ProgressBoard
from finetune_trainer.tracking.reporter import Reporter, tracked
from finetune_trainer.tracking.words import Opening, Outcome, parameters_of
from tests.mlflowserver import MlflowServer, mlflow_server
from tests.trainer.conftest import Workshop
from tests.trainer.pods import start_group
from tests.trainer.runs import difference, run, run_interrupted, weights_of
from tools.ports import free_port

EXPERIMENT = "support tickets"
PLAN: dict[str, Any] = {
    "name": "triage", "namespace": "team-a", "run_key": "k1", "attempt": 1, "method": "SFT",
    "base": {"digest": "sha256:" + "a" * 64, "uri": "pvc://c/models/secret-place"},
    "dataset": {"digest": "sha256:" + "b" * 64, "uri": "pvc://c/datasets/secret-place"},
    "claim": "c",
    "adapter": {"rank": 8, "alpha": 16, "dropout": 0.0},
    "hyperparameters": {"epochs": 1, "learning_rate": 1e-3, "global_batch_size": 8, "micro_batch_size": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


def plan_of(tracking: dict[str, Any], **changes: Any) -> TrainingPlan:
    return TrainingPlan.model_validate({**PLAN, **changes, "tracking": tracking})


def mlflow(uri: str, experiment: str = EXPERIMENT) -> dict[str, Any]:
    return {"mlflow": {"uri": uri, "experiment": experiment}}


def board() -> ProgressBoard:
    return ProgressBoard("k1", 1)


def warned(seen: Progress) -> str:
    (warning,) = seen.warnings
    assert warning.reason is WarningReason.TRACKING_INCOMPLETE
    assert warning.message.endswith("training goes on")
    return warning.message


def wait_for(what: ProgressBoard, condition: Any) -> Progress:
    end = time.monotonic() + 60
    while not condition(seen := what.snapshot()):
        assert time.monotonic() < end, seen
        time.sleep(0.02)
    return seen


# --- MLflow


def test_attempts_of_a_run_go_on_in_one_mlflow_run(server: MlflowServer) -> None:
    said: list[TrackedRun] = []
    for attempt, steps, outcome in ((1, (1, 2), Outcome.STOPPED), (2, (2, 3), Outcome.FINISHED)):
        here = board()
        reporter = Reporter(plan_of(mlflow(server.uri), attempt=attempt), here)
        wait_for(here, lambda seen: seen.tracking)
        for step in steps:
            reporter.log(step, {"train/loss": 1 / step, "train/rewards/margins": float(step)})
        time.sleep(1)  # a pod that is told to stop gives trackers little time
        reporter.close(outcome)
        said += here.snapshot().tracking
        assert here.snapshot().warnings == ()
    first, second = said
    assert first == second
    assert first.tracker is Tracker.MLFLOW
    assert first.url == f"{server.uri}/#/experiments/{server.experiment(EXPERIMENT)}/runs/{first.run}"
    (found,) = server.runs(EXPERIMENT)
    assert found["info"]["run_id"] == first.run
    assert found["info"]["run_name"] == "team-a/triage"
    assert found["info"]["status"] == "FINISHED"
    assert server.history(first.run, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    parameters = {each["key"]: each["value"] for each in found["data"]["params"]}
    assert parameters["hyperparameters.learningRate"] == "0.001"
    assert parameters["adapter.rank"] == "8"
    assert "hyperparameters.microBatchSize" not in parameters, "it may change between attempts, which MLflow refuses"


def test_another_run_key_and_another_job_get_runs_of_their_own(server: MlflowServer) -> None:
    for changes in ({"run_key": "k1"}, {"run_key": "k2"}, {"name": "other"}):
        reporter = Reporter(plan_of(mlflow(server.uri, "apart"), **changes), board())
        reporter.log(1, {"train/loss": 1.0})
        reporter.close(Outcome.FAILED)
    runs = server.runs("apart")
    assert len(runs) == 3
    assert {each["info"]["status"] for each in runs} == {"FAILED"}


def test_what_the_server_refuses_is_said_once_and_not_tried_again(server: MlflowServer) -> None:
    Reporter(plan_of(mlflow(server.uri, "gone")), board()).close(Outcome.FINISHED)
    server.call("experiments/delete", {"experiment_id": server.experiment("gone")})
    here = board()
    reporter = Reporter(plan_of(mlflow(server.uri, "gone")), here)
    seen = wait_for(here, lambda seen: seen.warnings)
    assert "the experiment 'gone' was deleted: restore it" in warned(seen)
    began = time.monotonic()
    reporter.close(Outcome.FINISHED)
    assert time.monotonic() - began < 3, "there is nothing to wait for"


def test_a_server_that_comes_back_gets_everything(tmp_path: Path) -> None:
    server, here = MlflowServer(tmp_path), board()
    reporter = Reporter(plan_of(mlflow(server.uri)), here)
    for step in range(1, 501):
        reporter.log(step, {"train/loss": 1 / step})
    assert "ConnectError" in warned(wait_for(here, lambda seen: seen.warnings))
    server.start()
    try:
        seen = wait_for(here, lambda seen: seen.tracking and not seen.warnings)
        reporter.close(Outcome.FINISHED)
        assert len(server.history(seen.tracking[0].run, "train/loss")) == 500
        assert here.snapshot().warnings == ()
    finally:
        server.stop()


# --- never in the way


class Silent:
    """A server that takes every connection and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._held: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._socket.close()


def test_a_silent_tracker_takes_no_time_from_training() -> None:
    silent, here = Silent(), board()
    reporter = Reporter(plan_of(mlflow(silent.uri)), here)
    slowest, began = 0.0, time.monotonic()
    for step in range(1, 50_001):
        now = time.monotonic()
        reporter.log(step, {"train/loss": 1.0, "train/grad_norm": 2.0})
        slowest = max(slowest, time.monotonic() - now)
    assert slowest < 1.0
    assert time.monotonic() - began < 30
    closing = time.monotonic()
    reporter.close(Outcome.STOPPED)
    assert time.monotonic() - closing < 6
    silent.close()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_nobody_there_is_a_warning_with_what_was_lost(outcome: Outcome) -> None:
    here = board()
    reporter = Reporter(plan_of(mlflow(f"http://127.0.0.1:{free_port()}")), here)
    wait_for(here, lambda seen: seen.warnings)
    for step in range(1, 11):
        reporter.log(step, {"train/loss": 1.0})
    began = time.monotonic()
    reporter.close(outcome)
    assert time.monotonic() - began < 17
    assert "MLflow: ConnectError" in warned(here.snapshot())
    if outcome is not Outcome.STOPPED:
        assert "10 of 10 points were not sent" in warned(here.snapshot())


def test_a_trackers_process_that_dies_is_no_failure(server: MlflowServer) -> None:
    reporter = Reporter(plan_of(mlflow(server.uri, "died")), board())
    reporter._process.kill()
    reporter._process.wait()
    reporter.log(1, {"train/loss": 1.0})
    reporter.close(Outcome.FINISHED)


def test_a_job_without_trackers_starts_nothing() -> None:
    neither: tuple[dict[str, Any] | None, ...] = (None, {})
    for tracking in neither:
        with tracked(TrainingPlan.model_validate({**PLAN, "tracking": tracking}), board()) as reporter:
            assert reporter is None


def test_nothing_but_what_decides_the_weights_is_a_parameter() -> None:
    method = {"method": "GRPO", "online": {"rewards": [{"function": "Regex", "pattern": "confidential"}]}}
    found = parameters_of(plan_of({}, **method))
    assert found["method"] == "GRPO"
    assert found["online.generations"] == 8
    text = str(found)
    for secret in ("secret-place", "confidential", "sha256"):
        assert secret not in text


# --- Weights & Biases


WANDB = {"weights_and_biases": {"project": "support", "entity": "team-a"}}


def records(path: Path) -> Iterator[Any]:
    """What the library would send: LevelDB's log format, of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # which has its classes when it is imported
    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield messages.Record.FromString(part)
            part = b""


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return tmp_path


def test_weights_and_biases_gets_metrics_and_hyperparameters_and_nothing_else(offline: Path) -> None:
    here = board()
    reporter = Reporter(plan_of(WANDB), here)
    seen = wait_for(here, lambda seen: seen.tracking)
    for step in (1, 2, 3):
        reporter.log(step, {"train/loss": 1 / step})
    reporter.close(Outcome.FINISHED)
    assert here.snapshot().warnings == ()
    (path,) = offline.glob("wandb/offline-run-*/*.wandb")
    found = list(records(path))
    (begun,) = [record.run for record in found if record.HasField("run")]
    assert begun.run_id == seen.tracking[0].run
    assert (begun.entity, begun.project, begun.display_name) == ("team-a", "support", "team-a/triage")
    assert (begun.host, begun.git.remote_url, begun.git.commit) == ("", "", "")
    config = {each.key: each.value_json for each in begun.config.update}
    assert config.pop("hyperparameters.learningRate") == "0.001"
    assert all(key.startswith(("adapter.", "hyperparameters.", "method", "_wandb")) for key in config)
    kinds = {record.WhichOneof("record_type") for record in found}
    assert not kinds & {"files", "stats", "output", "output_raw", "artifact", "environment"}, kinds
    rows = [
        {(item.key or "/".join(item.nested_key)): item.value_json for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    assert [row["train/loss"] for row in rows] == ["1", "0.5", "0.3333333333333333"]
    assert {key for row in rows for key in row} <= {"train/loss", "_step", "_runtime", "_timestamp"}
    assert not list(offline.glob("wandb/offline-run-*/files/*")), "no requirements, code or metadata"


def test_a_run_keeps_its_id_over_attempts() -> None:
    from finetune_trainer.tracking.weightsandbiases import run_id

    ids = []
    for changes in ({}, {"attempt": 2}, {"run_key": "k2"}, {"namespace": "team-b"}, {"name": "other"}):
        plan = plan_of(WANDB, **changes)
        opening = Opening(plan=plan.tracking, job=f"{plan.namespace}/{plan.name}", run_key=plan.run_key, parameters={})
        ids.append(run_id(opening))
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_a_missing_key_is_a_warning() -> None:
    here = board()
    reporter = Reporter(plan_of(WANDB), here)
    seen = wait_for(here, lambda seen: seen.warnings)
    assert "spec.tracking.weightsAndBiases.apiKeySecretRef: there is no such Secret" in warned(seen)
    reporter.close(Outcome.FINISHED)


# --- whole runs


def test_a_resumed_training_is_one_run_and_learns_what_it_learns_unwatched(
    workshop: Workshop, server: MlflowServer
) -> None:
    settings = {"hyperparameters": {"epochs": 2}, "evaluation": {"metrics": ["EvalLoss"], "baselines": ["ZeroShot"]}}
    unwatched = run(workshop.store, workshop.plan(run_key="unwatched", **settings))
    watched = workshop.plan(run_key="watched", **settings, tracking=mlflow(server.uri, "whole"))
    result = run_interrupted(workshop.store, watched, step=2)
    assert difference(weights_of(workshop.store, unwatched), weights_of(workshop.store, result)) == 0.0
    assert unwatched.tracking == ()
    (there,) = result.tracking
    (found,) = server.runs("whole")
    assert found["info"]["run_id"] == there.run
    assert found["info"]["status"] == "FINISHED"
    assert [step for step, _ in server.history(there.run, "train/loss")] == list(range(1, result.total_steps + 1))
    (score,) = [score for score in result.evaluation if score.system == "Tuned"]
    ((step, value),) = server.history(there.run, "evaluation/EvalLoss/Tuned")
    assert step == result.step
    assert value == pytest.approx(score.value)


def test_of_two_ranks_one_reports(workshop: Workshop, server: MlflowServer) -> None:
    plan = workshop.plan(
        parallelism={"nodes": 2, "timeout_seconds": 20},
        hyperparameters={"epochs": 1},
        tracking=mlflow(server.uri, "ranks"),
    )
    group = start_group(workshop.store, plan, "watched")
    assert group.exit_codes() == [0, 0]
    (found,) = server.runs("ranks")
    (there,) = group.first.result().tracking
    assert there.run == found["info"]["run_id"]


def test_a_training_with_a_tracker_that_is_down_succeeds(workshop: Workshop) -> None:
    plan = workshop.plan(hyperparameters={"epochs": 1}, tracking=mlflow(f"http://127.0.0.1:{free_port()}"))
    result = run(workshop.store, plan)
    assert result.artifact is not None
    (warning,) = [each for each in result.warnings if each.reason is WarningReason.TRACKING_INCOMPLETE]
    assert "points were not sent" in warning.message
