"""Which rows are held out: decided by each group's own digest, so that new rows do not move old ones."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune_contract.datasets import SplitPlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.near import Array

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SIDES = (TRAIN, VALIDATION, TEST)
_TRAIN, _VALIDATION, _TEST = range(3)


@dataclass(frozen=True)
class Division:
    """Where groups are."""

    sides: Array
    """For each group its place in SIDES."""
    moved: tuple[int, ...]
    """Groups that are not where their digest would put them: a split or a label's share would have too few rows."""
    fractions: dict[str, float]
    """Fractions that number of rows asked for have become."""


def divide(
    digests: Sequence[str], plan: SplitPlan, *, sizes: Array | None = None, labels: Array | None = None
) -> Division:
    """Put each group of rows on one side.

    A group's place in [0, 1) comes from the seed and its smallest digest; below `test` it is a test group, below
    `test + validation` a validation group. Groups are moved only where a wanted split would stay empty or, stratified,
    where a label would have less than half or more than twice its share of a split: those nearest to the border move.

    Args:
        digests: Each group's smallest digest.
        plan: Fractions or numbers of rows.
        sizes: Each group's rows; None: one each.
        labels: Each group's label, as a number; None: not stratified.

    Raises:
        FineTuneError: InvalidPlan for impossible fractions, DatasetInvalid for too few rows.
    """
    places = np.array([_place(digest, plan.seed) for digest in digests])
    order = np.argsort(places, kind="stable")
    test, validation, fractions = _fractions(
        plan, places[order], np.ones(len(order), int) if sizes is None else sizes[order]
    )
    wanted = 1 + (validation > 0) + (test > 0)
    if len(places) < wanted:
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"spec.split: {len(places)} distinct rows are too few for {wanted} splits; add rows or remove a split",
        )
    natural = np.where(places < test, _TEST, np.where(places < test + validation, _VALIDATION, _TRAIN))
    sides = natural.copy()
    if labels is not None:
        for label in np.unique(labels):
            _stratify(sides, order[labels[order] == label], test, validation, wanted)
    _fill(sides, order, test, validation)
    return Division(sides, tuple(np.flatnonzero(sides != natural).tolist()), fractions)


def _fractions(plan: SplitPlan, places: Array, sizes: Array) -> tuple[float, float, dict[str, float]]:
    """The borders, and what numbers of rows have become; `places` are sorted."""
    for name, fraction in ((VALIDATION, plan.validation), (TEST, plan.test)):
        if not 0 <= fraction < 1:
            raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.split.{name}: {fraction} is not in 0 to 1")
    rows = np.cumsum(sizes)
    found: dict[str, float] = {}
    test, validation = plan.test, plan.validation
    if plan.test_rows is not None:
        test = found[TEST] = _border(TEST, plan.test_rows, 0, places, rows)
    if plan.validation_rows is not None:
        before = int(np.searchsorted(places, test))
        held = int(rows[before - 1]) if before else 0
        validation = found[VALIDATION] = _border(VALIDATION, plan.validation_rows, held, places, rows) - test
    if test + validation >= 1:
        raise FineTuneError(FailureReason.INVALID_PLAN, "spec.split: validation and test leave nothing to train on")
    return test, validation, found


def _border(name: str, wanted: int, before: int, places: Array, rows: Array) -> float:
    """Half way between the last group that is held out and the next one, so that neither lies on the border."""
    last = int(np.searchsorted(rows, before + wanted))
    if last + 1 >= len(places):
        total = int(rows[-1]) if len(rows) else 0
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"spec.split.{name}: {wanted} of {total} rows would leave none to train on; ask for fewer, or a fraction",
        )
    return float((places[last] + places[last + 1]) / 2)


def _place(digest: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}:{digest}".encode()).digest()[:8]) / 2**64


def _stratify(sides: Array, members: Array, test: float, validation: float, wanted: int) -> None:
    """Keep one label's groups near their share of each side; `members` are sorted by place."""
    count = len(members)
    if count < wanted:
        sides[members] = _TRAIN  # what is held out only can neither be learnt nor fairly tested
        return
    sizes = {}
    for side, fraction in ((_TEST, test), (_VALIDATION, validation)):
        low = max(1, math.floor(count * fraction / 2)) if fraction else 0
        high = max(1, math.ceil(count * fraction * 2)) if fraction else 0
        sizes[side] = min(max(int((sides[members] == side).sum()), low), high)
    _cut(sides, members, sizes[_TEST], sizes[_VALIDATION])


def _fill(sides: Array, order: Array, test: float, validation: float) -> None:
    """No wanted side stays empty, and one group is left to train on."""
    sizes = [int((sides == side).sum()) for side in range(3)]
    if sizes[_TRAIN] and (sizes[_VALIDATION] or not validation) and (sizes[_TEST] or not test):
        return
    _cut(sides, order, max(sizes[_TEST], int(test > 0)), max(sizes[_VALIDATION], int(validation > 0)))


def _cut(sides: Array, members: Array, test: int, validation: int) -> None:
    """The first `test` are test groups, the next `validation` validation groups, and one at least is left to train."""
    while test + validation >= len(members):
        if test > validation:
            test -= 1
        else:
            validation -= 1
    sides[members[:test]] = _TEST
    sides[members[test : test + validation]] = _VALIDATION
    sides[members[test + validation :]] = _TRAIN
