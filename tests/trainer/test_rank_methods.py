"""Preferences and rewards on two ranks (gloo): the rows, steps and weights of one rank, resumed with either number."""

import signal
from typing import Any

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.training import TrainingPlan
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.pods import EVERY_STEP, finished, start_group
from tests.trainer.runs import difference, weights_of

ADAPTER = {"rank": 4, "alpha": 8, "dropout": 0}
ROWS = 22
"""Five whole steps of four rows, and one of two rows, in which a second rank has nothing to compute."""

METHODS = ["DPO", "KTO", "Reward", "ORPO", "SimPO"]


@pytest.fixture
def pairs(workshop: Workshop) -> StoredReference:
    rows = {"train": tiny.preference_rows(ROWS, 1), "test": tiny.preference_rows(4, 2)}
    return tiny.publish_dataset(workshop.store, RowFormat.PREFERENCE, rows)


def plan_of(workshop: Workshop, pairs: StoredReference, method: str, ranks: int, **changes: Any) -> TrainingPlan:
    # A row of KTO is half a pair.
    batch, epochs = (8, 1) if method == "KTO" else (4, 1.5)
    settings = {"epochs": epochs, "global_batch_size": batch, "micro_batch_size": batch // 2, "learning_rate": 1e-3}
    document = {
        "method": method,
        "adapter": ADAPTER,
        "hyperparameters": settings,
        "parallelism": {"nodes": ranks, "timeout_seconds": 20},
        "evaluation": {},
        **changes,
    }
    return tiny.make_plan(workshop.base, pairs, **document)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_compute_what_one_does(method: str, workshop: Workshop, pairs: StoredReference) -> None:
    results = [
        finished(workshop.store, plan_of(workshop, pairs, method, ranks, run_key=f"r{ranks}"), f"of{ranks}")
        for ranks in (1, 2)
    ]
    assert results[0].total_steps == results[1].total_steps
    assert results[0].tokens == results[1].tokens
    assert difference(*(weights_of(workshop.store, result) for result in results)) == 0.0


def test_full_fine_tuning_copies_the_model_and_its_reference(workshop: Workshop, pairs: StoredReference) -> None:
    plans = [plan_of(workshop, pairs, "DPO", ranks, run_key=f"r{ranks}", adapter=None) for ranks in (1, 2)]
    one, two = (weights_of(workshop.store, finished(workshop.store, plan, f"of{at}")) for at, plan in enumerate(plans))
    assert difference(one, two) == 0.0


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("method", ["DPO", "KTO"])
def test_a_group_goes_on_bit_by_bit(
    method: str, before: int, after: int, workshop: Workshop, pairs: StoredReference
) -> None:
    calm = weights_of(
        workshop.store, finished(workshop.store, plan_of(workshop, pairs, method, after, run_key="calm"), "calm")
    )
    group = start_group(workshop.store, plan_of(workshop, pairs, method, before, checkpoints=EVERY_STEP), "before")
    group.first.wait_until(lambda: group.first.sealed_step() >= 2)
    for pod in group:
        pod.signal(signal.SIGKILL)
    group.exit_codes()
    result = finished(workshop.store, plan_of(workshop, pairs, method, after, attempt=2), "after")
    assert result.resumed_from_step is not None
    assert 2 <= result.resumed_from_step < result.total_steps
    assert difference(weights_of(workshop.store, result), calm) == 0.0
