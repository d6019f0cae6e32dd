"""Splits: stable, separate, never empty, stratified where nothing has to move for it; and the digest over them."""

import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.datasets import RowFormat, SplitPlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.revision import digest_of
from finetune_trainer.data.rows import Origin, make_row
from finetune_trainer.data.split import SIDES, Division, divide

PLAN = SplitPlan(validation=0.2, test=0.2)
NUMBERS = st.sets(st.integers(0, 10_000), min_size=3, max_size=60)
PLANS = st.builds(
    SplitPlan,
    validation=st.sampled_from([0.0, 0.01, 0.1, 0.45]),
    test=st.sampled_from([0.0, 0.01, 0.1, 0.45]),
    seed=st.integers(0, 3),
)


def digest(number: int) -> str:
    return make_row(Origin("tickets.jsonl", number), {"text": str(number)}).digest


def sides(numbers: Iterable[int], plan: SplitPlan) -> dict[int, str]:
    ordered = sorted(numbers)
    division = divide([digest(number) for number in ordered], plan)
    return {number: SIDES[side] for number, side in zip(ordered, division.sides, strict=True)}


def splits(side_of: dict[int, str]) -> dict[str, list[str]]:
    return {
        side: sorted(digest(number) for number, own in side_of.items() if own == side)
        for side in SIDES
        if side in side_of.values()
    }


@given(NUMBERS, PLANS)
def test_no_wanted_side_is_empty(numbers: set[int], plan: SplitPlan) -> None:
    wanted = {"train"} | ({"validation"} if plan.validation else set()) | ({"test"} if plan.test else set())
    assert set(sides(numbers, plan).values()) == wanted


@given(st.sets(st.integers(0, 10_000), max_size=50), st.sets(st.integers(0, 10_000), max_size=50))
def test_a_row_keeps_its_side_when_rows_are_added(some: set[int], more: set[int]) -> None:
    # With these rows every side is filled, so that none has to be moved into an empty one.
    base = set(range(100_000, 100_040))
    before, after = (sides(numbers, PLAN) for numbers in (base | some, base | some | more))
    assert before.items() <= after.items()


@given(NUMBERS, st.randoms(use_true_random=False), PLANS)
def test_order_decides_neither_split_nor_digest(numbers: set[int], shuffle: random.Random, plan: SplitPlan) -> None:
    shuffled = list(numbers)
    shuffle.shuffle(shuffled)
    division = divide([digest(number) for number in shuffled], plan)
    assert dict(zip(shuffled, (SIDES[side] for side in division.sides), strict=True)) == sides(numbers, plan)
    found = splits(sides(numbers, plan))
    assert digest_of(RowFormat.TEXT, found) == digest_of(RowFormat.TEXT, dict(reversed(found.items())))


def test_fractions_are_met() -> None:
    found = list(sides(range(5000), PLAN).values())
    assert {side: round(found.count(side) / 5000, 1) for side in SIDES} == {
        "train": 0.6,
        "validation": 0.2,
        "test": 0.2,
    }


def test_the_seed_decides() -> None:
    assert sides(range(100), PLAN) != sides(range(100), PLAN.model_copy(update={"seed": 1}))


# --- numbers of rows ---


@given(st.sets(st.integers(0, 10_000), min_size=30, max_size=80), st.integers(1, 9), st.integers(1, 9))
def test_a_number_is_met_and_its_fraction_keeps_every_row_on_its_side(
    numbers: set[int], test: int, validation: int
) -> None:
    ordered = sorted(numbers)
    digests = [digest(number) for number in ordered]
    first = divide(digests, SplitPlan(test_rows=test, validation_rows=validation))
    counts = np.bincount(first.sides, minlength=3)
    assert counts.tolist() == [len(ordered) - test - validation, validation, test]
    again = SplitPlan(test=first.fractions["test"], validation=first.fractions["validation"])
    assert divide(digests, again).sides.tolist() == first.sides.tolist()
    more = [*digests, *(digest(number) for number in range(20_000, 20_030))]
    assert divide(more, again).sides.tolist()[: len(digests)] == first.sides.tolist()


def test_more_rows_than_there_are_cannot_be_held_out() -> None:
    with pytest.raises(FineTuneError, match=r"spec\.split\.test: 30 of 30 rows would leave none") as error:
        divide([digest(number) for number in range(30)], SplitPlan(test_rows=30))
    assert error.value.reason is FailureReason.DATASET_INVALID


def test_a_number_counts_rows_not_groups() -> None:
    division = divide([digest(number) for number in range(40)], SplitPlan(test_rows=20), sizes=np.full(40, 5))
    assert int((division.sides == SIDES.index("test")).sum()) == 4


# --- stratified ---


def stratified(labels: dict[int, int], plan: SplitPlan) -> tuple[dict[int, str], Division]:
    ordered = sorted(labels)
    division = divide([digest(number) for number in ordered], plan, labels=np.array([labels[at] for at in ordered]))
    return {number: SIDES[side] for number, side in zip(ordered, division.sides, strict=True)}, division


LABELLED = st.dictionaries(st.integers(0, 10_000), st.integers(0, 3), min_size=12, max_size=120)


@given(LABELLED)
def test_every_label_that_has_enough_rows_is_on_every_side_with_half_to_twice_its_share(
    labels: dict[int, int],
) -> None:
    found, _ = stratified(labels, PLAN)
    counts = {
        label: [[found[at] for at, own in labels.items() if own == label].count(side) for side in SIDES]
        for label in set(labels.values())
    }
    if any(sum(count) >= 3 for count in counts.values()):
        for train, validation, test in counts.values():
            rows = train + validation + test
            if rows < 3:
                assert (validation, test) == (0, 0)
            else:
                assert train >= 1
                for held in (validation, test):
                    assert max(1, int(rows * 0.2 / 2)) <= held <= max(1, np.ceil(rows * 0.2 * 2))


@given(LABELLED, LABELLED)
def test_a_stratified_row_leaves_its_side_only_where_that_is_listed(some: dict[int, int], more: dict[int, int]) -> None:
    both = {**more, **some}
    before, first = stratified(some, PLAN)
    after, second = stratified(both, PLAN)
    listed = {sorted(some)[at] for at in first.moved} | {sorted(both)[at] for at in second.moved}
    assert {number for number, side in before.items() if after[number] != side} <= listed


# --- the digest ---


def test_the_digest_is_over_rows_splits_and_format() -> None:
    found = splits(sides(range(10), PLAN))
    digests = {
        digest_of(RowFormat.TEXT, found),
        digest_of(RowFormat.CLASSIFICATION, found),
        digest_of(RowFormat.TEXT, {"train": sorted(row for rows in found.values() for row in rows)}),
        digest_of(RowFormat.TEXT, splits(sides(range(1, 10), PLAN))),
    }
    assert len(digests) == 4


def test_a_digest_is_frozen() -> None:
    """A revision's name must not change with a release: this fails when the canonical form does."""
    assert (
        digest_of(RowFormat.TEXT, splits(sides([1, 2, 3, 4, 5], PLAN)))
        == "sha256:dceaf2e5daec969306b38dc7be28b1229228a6f437ec6697857a06f500e37b89"
    )
