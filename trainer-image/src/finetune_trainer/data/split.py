"""Which rows are held out: decided by each row's own digest, so that new rows do not move old ones."""

import hashlib
from collections.abc import Sequence

from finetune_contract.datasets import SplitPlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.rows import Row

TRAIN, VALIDATION, TEST = "train", "validation", "test"


def divide(groups: Sequence[Sequence[Row]], plan: SplitPlan) -> dict[str, list[Row]]:
    """Every split's rows, sorted by digest; a group stays on one side.

    A group's place in [0, 1) comes from the seed and its smallest digest; below `test` it is a test group, below
    `test + validation` a validation group. Only where a wanted split would stay empty the nearest groups are moved.

    Raises:
        FineTuneError: InvalidPlan for impossible fractions, DatasetInvalid for too few rows.
    """
    _must_be_fractions(plan)
    placed = sorted(((_place(group, plan.seed), group) for group in groups), key=lambda pair: pair[0])
    wanted = 1 + (plan.validation > 0) + (plan.test > 0)
    if len(placed) < wanted:
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"spec.split: {len(placed)} distinct rows are too few for {wanted} splits; add rows or remove a split",
        )
    places = [place for place, _ in placed]
    test, validation = _sizes(places, plan)
    sides = {
        TRAIN: placed[test + validation :],
        VALIDATION: placed[test : test + validation],
        TEST: placed[:test],
    }
    return {
        side: sorted((row for _, group in members for row in group), key=lambda row: row.digest)
        for side, members in sides.items()
        if members
    }


def _must_be_fractions(plan: SplitPlan) -> None:
    for name, fraction in ((VALIDATION, plan.validation), (TEST, plan.test)):
        if not 0 <= fraction < 1:
            raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.split.{name}: {fraction} is not in 0 to 1")
    if plan.validation + plan.test >= 1:
        raise FineTuneError(FailureReason.INVALID_PLAN, "spec.split: validation and test leave nothing to train on")


def _place(group: Sequence[Row], seed: int) -> float:
    smallest = min(row.digest for row in group)
    return int.from_bytes(hashlib.sha256(f"{seed}:{smallest}".encode()).digest()[:8]) / 2**64


def _sizes(places: list[float], plan: SplitPlan) -> tuple[int, int]:
    """How many of the sorted places are test and validation: at least one where wanted, and one left to train."""
    test = sum(place < plan.test for place in places)
    validation = sum(place < plan.test + plan.validation for place in places) - test
    test, validation = max(test, int(plan.test > 0)), max(validation, int(plan.validation > 0))
    while test + validation >= len(places):
        if test > validation:
            test -= 1
        else:
            validation -= 1
    return test, validation
