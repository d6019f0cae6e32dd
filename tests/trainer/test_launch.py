"""The ranks of one pod: how the end of one becomes the pod's, and one whole run by the command itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.failure import FailureReason
from finetune_contract.results import TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_trainer.train import launch as launching
from finetune_trainer.train.launch import launch
from tests.trainer.conftest import Workshop

RANK = """
import os, pathlib, signal, sys, time
log = next(word.partition("=")[2] for word in sys.argv if word.startswith("--termination-log="))
what = sys.argv[1:][int(os.environ["LOCAL_RANK"])]
if what == "abort":
    os.abort()
if what == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
delay, code = map(float, what.split())
time.sleep(delay)
pathlib.Path(log).write_text(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}")
sys.exit(int(code))
"""
"""Stands in for the trainer: one argument per rank says how it ends."""


def a_plan(workshop: Workshop, **parallelism: int) -> TrainingPlan:
    return workshop.plan(parallelism={"processes_per_node": 2, **parallelism})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def start(command: Sequence[str], **more: Any) -> Any:
        return real([sys.executable, "-c", RANK, *command[4:]], **more)

    monkeypatch.setattr("finetune_trainer.train.launch.subprocess.Popen", start)
    monkeypatch.setattr(launching, "PATIENCE", 2.0)


@pytest.mark.parametrize(
    ("ranks", "code", "left"),
    [
        pytest.param(["0 0", "0.5 0"], 0, "rank 0 of 2", id="success is what rank 0 left"),
        pytest.param(["0.5 79", "0 72"], 72, "rank 1 of 2", id="the one that failed first"),
        pytest.param(["0 79", "0.5 72"], 72, "rank 1 of 2", id="a lost peer is no cause"),
        pytest.param(["0 79", "0.5 79"], 79, "rank 0 of 2", id="both lost the others"),
        pytest.param(["abort", "0.5 72"], 72, "rank 1 of 2", id="NCCL's watchdog is no cause"),
        pytest.param(["0 72", "hang"], 72, "rank 0 of 2", id="one that does not notice is killed"),
    ],
)
@pytest.mark.usefixtures("stand_in")
def test_the_pod_ends_as_the_rank_that_is_the_cause(
    ranks: list[str], code: int, left: str, workshop: Workshop, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert launch(a_plan(workshop), ranks, tmp_path, log, os.environ) == code
    assert log.read_text() == left


@pytest.mark.usefixtures("stand_in")
def test_a_rank_that_was_aborted_has_lost_its_peers(workshop: Workshop, tmp_path: Path) -> None:
    assert launch(a_plan(workshop), ["abort", "abort"], tmp_path, tmp_path / "log", os.environ) == 79
    result = TrainingResult.model_validate_json((tmp_path / "log").read_bytes())
    assert result.failure is not None
    assert result.failure.reason is FailureReason.NCCL_TIMEOUT
    assert result.run_key == "a1"


@pytest.mark.usefixtures("stand_in")
def test_a_killed_rank_leaves_the_word_to_kubernetes(workshop: Workshop, tmp_path: Path) -> None:
    assert launch(a_plan(workshop), ["0 137", "0 79"], tmp_path, tmp_path / "log", os.environ) == 137


@pytest.mark.usefixtures("stand_in")
def test_ranks_are_numbered_over_the_nodes(workshop: Workshop, tmp_path: Path) -> None:
    environment = {**os.environ, "NODE_RANK": "2", "MASTER_ADDR": "first", "MASTER_PORT": "1"}
    assert launch(a_plan(workshop, nodes=3), ["1 0", "0 72"], tmp_path, tmp_path / "log", environment) == 72
    assert (tmp_path / "log").read_text() == "rank 5 of 6"


def start(workshop: Workshop, tmp_path: Path, **changes: Any) -> subprocess.Popen[bytes]:
    """The command itself, as a pod of two ranks runs it."""
    settings = {"packing": True, "global_batch_size": 2, "micro_batch_size": 1, **changes}
    parallelism = {"processes_per_node": 2, "timeout_seconds": 30}
    plan = workshop.plan(hyperparameters=settings, parallelism=parallelism, checkpoints={"interval_minutes": 0})
    (tmp_path / "plan.json").write_text(plan.to_json())
    return subprocess.Popen(
        [sys.executable, "-m", "finetune_trainer", "train", f"--plan={tmp_path / 'plan.json'}",
         f"--store={workshop.store.root}", f"--scratch={tmp_path}", f"--termination-log={tmp_path / 'log'}",
         "--port=0", "--pod-uid=pod"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_told_to_stop_a_pod_of_two_ranks_saves_the_step_in_hand(workshop: Workshop, tmp_path: Path) -> None:
    pod = start(workshop, tmp_path, epochs=200)
    sealed = workshop.store.root / "runs" / "a1" / "checkpoints" / "pod"
    end = time.monotonic() + 240  # three processes load the libraries, two at a time
    while not list(sealed.glob("checkpoint-*/manifest.json")):
        assert pod.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(60) == 78
    result = TrainingResult.model_validate_json((tmp_path / "log").read_bytes())
    assert result.failure is not None
    assert result.failure.reason is FailureReason.PREEMPTED
    assert result.checkpoint_step == result.step >= 1
