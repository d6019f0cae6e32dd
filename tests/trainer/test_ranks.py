"""Several ranks on loopback (gloo): they compute what one does, stop together, resume, and never wait for the dead."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.failure import FailureReason
from finetune_contract.training import TrainingPlan
from tests.trainer.conftest import Workshop
from tests.trainer.pods import EVERY_STEP, Pod, finished, meeting, start_group
from tests.trainer.runs import difference, weights_of

ADAPTER = {"rank": 4, "alpha": 8, "dropout": 0}
DROPPING = {"rank": 4, "alpha": 8, "dropout": 0.2}
SETTINGS = {"packing": True, "epochs": 8, "global_batch_size": 2, "micro_batch_size": 1}
"""Two forward passes per step: one each for two ranks, both for one."""


def plan_of(workshop: Workshop, ranks: int, **changes: Any) -> TrainingPlan:
    parallelism = {"nodes": ranks, "timeout_seconds": 20, **changes.pop("parallelism", {})}
    settings = {**SETTINGS, **changes.pop("hyperparameters", {})}
    return workshop.plan(**{"adapter": ADAPTER, "hyperparameters": settings, "parallelism": parallelism, **changes})


@pytest.fixture(scope="module")
def alone(origin: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that one rank arrives at, undisturbed and without dropout."""
    workshop = origin.copied(tmp_path_factory.mktemp("alone") / "store")
    return weights_of(workshop.store, finished(workshop.store, plan_of(workshop, 1), "calm"))


def test_two_ranks_compute_what_one_does(workshop: Workshop, alone: dict[str, torch.Tensor]) -> None:
    result = finished(workshop.store, plan_of(workshop, 2), "pair")
    assert difference(weights_of(workshop.store, result), alone) == 0.0


@pytest.mark.parametrize("environment", [{}, {"PADDED": "1"}], ids=["packable", "padded, with TRL's own loss"])
def test_many_passes_per_step_add_up_to_the_same(environment: dict[str, str], workshop: Workshop) -> None:
    settings = {"packing": False, "epochs": 1, "global_batch_size": 9}  # five passes each, the last of them blank
    adapter = {"rank": 4, "alpha": 8, "dropout": 0}
    results = []
    for ranks in (1, 2):
        plan = plan_of(workshop, ranks, run_key=f"a{ranks}", adapter=adapter, hyperparameters=settings)
        results.append(weights_of(workshop.store, finished(workshop.store, plan, f"of{ranks}", **environment)))
    assert difference(*results) == 0.0


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_group_of_another_size_goes_on_bit_by_bit(
    before: int, after: int, workshop: Workshop, alone: dict[str, torch.Tensor]
) -> None:
    group = start_group(workshop.store, plan_of(workshop, before, checkpoints=EVERY_STEP), "before")
    group.first.wait_until(lambda: group.first.sealed_step() >= 5)
    for pod in group:
        pod.signal(signal.SIGKILL)
    group.exit_codes()
    result = finished(workshop.store, plan_of(workshop, after, attempt=2), "after")
    assert result.resumed_from_step is not None
    assert 5 <= result.resumed_from_step < result.total_steps
    assert difference(weights_of(workshop.store, result), alone) == 0.0


def test_sigterm_to_one_rank_saves_once_and_stops_all(workshop: Workshop, origin: Workshop, tmp_path: Path) -> None:
    undisturbed = origin.copied(tmp_path / "calm")
    calm = weights_of(undisturbed.store, finished(undisturbed.store, plan_of(undisturbed, 2, adapter=DROPPING), "calm"))
    group = start_group(workshop.store, plan_of(workshop, 2, adapter=DROPPING), "stopped")
    group.first.wait_until(lambda: bool((seen := group.first.progress()) and seen.step >= 3))
    group[1].signal(signal.SIGTERM)
    assert group.exit_codes() == [78, 78]
    results = [pod.result() for pod in group]
    assert {result.failure.reason for result in results if result.failure} == {FailureReason.PREEMPTED}
    steps = {result.checkpoint_step for result in results} | {result.step for result in results}
    assert steps == {group.first.sealed_step()}
    assert not (workshop.store.root / "artifacts").exists()
    result = finished(workshop.store, plan_of(workshop, 2, adapter=DROPPING, attempt=2), "resumed")
    assert {result.resumed_from_step} == steps
    assert difference(weights_of(workshop.store, result), calm) == 0.0, "every rank's random state is resumed"


def sharded_plan(workshop: Workshop, ranks: int, strategy: str = "FSDP", **changes: Any) -> TrainingPlan:
    """Full fine-tuning, packed."""
    parallelism = {"nodes": ranks, "timeout_seconds": 20, "strategy": strategy}
    settings = {"epochs": 6, "global_batch_size": 2, "micro_batch_size": 1}
    return workshop.text_plan(hyperparameters=settings, parallelism=parallelism, **changes)


@pytest.fixture(scope="module")
def sharded(origin: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that two ranks arrive at that divide the model between them."""
    workshop = origin.copied(tmp_path_factory.mktemp("sharded") / "store")
    return weights_of(workshop.store, finished(workshop.store, sharded_plan(workshop, 2), "calm"))


@pytest.mark.parametrize("strategy", ["DDP", "FSDP"])
def test_activations_computed_again_change_nothing(
    strategy: str, workshop: Workshop, sharded: dict[str, torch.Tensor]
) -> None:
    plan = sharded_plan(workshop, 2, strategy)
    result = finished(workshop.store, plan, "again", RECOMPUTE="1")
    assert difference(weights_of(workshop.store, result), sharded) == 0.0


def test_a_divided_model_learns_what_a_whole_one_does(workshop: Workshop, sharded: dict[str, torch.Tensor]) -> None:
    whole = weights_of(workshop.store, finished(workshop.store, sharded_plan(workshop, 1), "whole"))
    assert difference(whole, sharded) == 0.0


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_divided_model_goes_on_with_any_number_of_ranks(
    before: int, after: int, workshop: Workshop, sharded: dict[str, torch.Tensor]
) -> None:
    group = start_group(workshop.store, sharded_plan(workshop, before, checkpoints=EVERY_STEP), "before")
    group.first.wait_until(lambda: group.first.sealed_step() >= 5)
    for pod in group:
        pod.signal(signal.SIGKILL)
    group.exit_codes()
    result = finished(workshop.store, sharded_plan(workshop, after, attempt=2), "after")
    assert result.resumed_from_step is not None
    assert 5 <= result.resumed_from_step < result.total_steps
    assert difference(weights_of(workshop.store, result), sharded) == 0.0


def test_the_loss_of_one_rank_ends_the_other_by_name(workshop: Workshop) -> None:
    group = start_group(workshop.store, plan_of(workshop, 2, checkpoints=EVERY_STEP), "lost")
    group.first.wait_until(lambda: group.first.sealed_step() >= 3)
    group[1].signal(signal.SIGKILL)
    killed = time.monotonic()
    assert group.first.exit_code() == 79
    assert time.monotonic() - killed < 20
    failure = group.first.result().failure
    assert failure is not None
    assert failure.reason is FailureReason.NCCL_TIMEOUT


def test_a_silent_rank_ends_the_other_within_the_timeout(workshop: Workshop) -> None:
    plan = plan_of(workshop, 2, checkpoints=EVERY_STEP, parallelism={"timeout_seconds": 4})
    group = start_group(workshop.store, plan, "silent")
    group.first.wait_until(lambda: group.first.sealed_step() >= 3)
    group[1].signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        assert group.first.exit_code() == 79
        assert 3 < time.monotonic() - stopped < 15
    finally:
        group[1].signal(signal.SIGKILL)


def test_a_first_rank_that_never_comes_is_named(workshop: Workshop) -> None:
    plan = plan_of(workshop, 2, parallelism={"timeout_seconds": 1})
    pod = Pod(workshop.store, plan, "early", meeting(2)[1])
    assert pod.exit_code() == 79
    failure = pod.result().failure
    assert failure is not None
    assert "was not there within 1 s" in failure.message
