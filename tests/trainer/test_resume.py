"""Promise 2: killing a training pod at any moment loses at most one interval, and what follows is bit-equal."""

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.failure import FailureReason
from finetune_contract.paths import TERMINATION_LIMIT
from finetune_contract.results import Phase, TrainingResult
from finetune_contract.training import TrainingPlan
from tests.trainer.conftest import Workshop
from tests.trainer.pods import EVERY_STEP, Pod
from tests.trainer.runs import difference, weights_of

KINDS = ["packed adapter", "packed model"]


def plan_of(workshop: Workshop, kind: str, **changes: Any) -> TrainingPlan:
    """About 100 steps."""
    if kind == "packed adapter":
        return workshop.long_plan(**changes)
    return workshop.text_plan(hyperparameters={"epochs": 12, "global_batch_size": 2}, **changes)


@pytest.fixture(scope="module")
def uninterrupted(origin: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of each kind of run when nothing disturbs it."""
    found = {}
    for kind in KINDS:
        workshop = origin.copied(tmp_path_factory.mktemp("uninterrupted") / "store")
        pod = Pod(workshop.store, plan_of(workshop, kind), "calm")
        assert pod.exit_code() == 0
        found[kind] = weights_of(workshop.store, pod.result())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_a_random_step_it_goes_on_bit_by_bit(
    kind: str, workshop: Workshop, uninterrupted: dict[str, dict[str, torch.Tensor]]
) -> None:
    step = random.Random(kind).randint(2, 30)
    killed = Pod(workshop.store, plan_of(workshop, kind, checkpoints=EVERY_STEP), "killed")
    killed.wait_until(lambda: killed.sealed_step() >= step)
    killed.signal(signal.SIGKILL)
    assert killed.exit_code() == -signal.SIGKILL
    resumed = Pod(workshop.store, plan_of(workshop, kind, attempt=2), "resumed")
    assert resumed.exit_code() == 0
    result = resumed.result()
    assert result.resumed_from_step is not None
    assert step <= result.resumed_from_step < result.total_steps
    assert difference(weights_of(workshop.store, result), uninterrupted[kind]) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_told_to_stop_it_saves_the_step_in_hand_and_never_succeeds(
    kind: str, workshop: Workshop, uninterrupted: dict[str, dict[str, torch.Tensor]]
) -> None:
    stopped = Pod(workshop.store, plan_of(workshop, kind), "stopped")
    stopped.wait_until(lambda: bool((seen := stopped.progress()) and seen.step >= 3))
    stopped.signal(signal.SIGTERM)
    assert stopped.exit_code() == 78
    result = stopped.result()
    assert result.failure is not None
    assert result.failure.reason is FailureReason.PREEMPTED
    assert result.artifact is None
    assert result.checkpoint_step == result.step == stopped.sealed_step() >= 3
    assert not (workshop.store.root / "artifacts").exists()
    resumed = Pod(workshop.store, plan_of(workshop, kind, attempt=2), "resumed")
    assert resumed.exit_code() == 0
    assert resumed.result().resumed_from_step == result.step
    assert difference(weights_of(workshop.store, resumed.result()), uninterrupted[kind]) == 0.0


def test_a_torn_checkpoint_is_passed_over(
    workshop: Workshop, uninterrupted: dict[str, dict[str, torch.Tensor]]
) -> None:
    kind = KINDS[0]
    killed = Pod(workshop.store, plan_of(workshop, kind, checkpoints=EVERY_STEP), "killed")
    killed.wait_until(lambda: killed.sealed_step() >= 4)
    killed.signal(signal.SIGKILL)
    killed.exit_code()
    step = killed.sealed_step()
    checkpoints = workshop.store.root / "runs" / "a1" / "checkpoints" / "killed"
    torn = checkpoints / f"checkpoint-{step}" / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-100])
    resumed = Pod(workshop.store, plan_of(workshop, kind, attempt=2), "resumed")
    assert resumed.exit_code() == 0
    assert resumed.result().resumed_from_step == step - 1
    assert difference(weights_of(workshop.store, resumed.result()), uninterrupted[kind]) == 0.0


def test_the_command_itself(workshop: Workshop, tmp_path: Path) -> None:
    """The one test that pays for a process from nothing: dispatch, mounts, exit code, termination message."""
    plan = tmp_path / "plan.json"
    plan.write_text(workshop.plan(hyperparameters={"max_length": 24}).to_json())
    log = tmp_path / "termination-log"
    done = subprocess.run(
        [sys.executable, "-m", "finetune_trainer", "train", f"--plan={plan}", f"--store={workshop.store.root}",
         f"--scratch={tmp_path}", f"--termination-log={log}", "--port=0"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 77, done.stdout + done.stderr
    result = TrainingResult.model_validate_json(log.read_bytes())
    assert result.failure is not None
    assert result.failure.reason is FailureReason.DATA_TRUNCATED
    assert "DataTruncated: spec.hyperparameters.maxLength: 24 tokens" in done.stdout
    assert done.stderr == "", "libraries are quiet"
    assert len(log.read_bytes()) <= TERMINATION_LIMIT


@pytest.mark.parametrize(
    ("content", "where"), [("{}", "name"), ('{"version": 99}', "version"), (None, "No such file")], ids=str
)
def test_a_plan_of_another_release_is_a_contract_violation(
    content: str | None, where: str, tmp_path: Path, workshop: Workshop
) -> None:
    from finetune_store.edge import run_command
    from finetune_trainer.train.main import _Command, _parse

    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    arguments = _parse([f"--plan={tmp_path / 'plan.json'}", f"--store={workshop.store.root}", "--port=0"])
    command = _Command(arguments)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert run_command(command.work, command.failed, tmp_path / "log") == 65
    finally:
        signal.signal(signal.SIGTERM, handler)
    failure = TrainingResult.model_validate_json((tmp_path / "log").read_bytes()).failure
    assert failure is not None
    assert failure.reason is FailureReason.CONTRACT_VIOLATION
    assert where in failure.message


def test_progress_is_there_while_it_trains(workshop: Workshop) -> None:
    pod = Pod(workshop.store, plan_of(workshop, KINDS[1]), "watched")
    pod.wait_until(lambda: bool((seen := pod.progress()) and seen.phase is Phase.TRAINING and seen.loss))
    seen = pod.progress()
    assert pod.exit_code() == 0
    assert seen is not None
    assert 0 < seen.step <= seen.total_steps == pod.result().total_steps
    assert seen.tokens_per_second is not None
    assert seen.learning_rate is not None
