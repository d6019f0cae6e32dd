"""Splits: stable, separate, never empty; and the digest over them."""

import random

from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.datasets import RowFormat, SplitPlan
from finetune_trainer.data.revision import digest_of
from finetune_trainer.data.rows import Origin, Row, make_row
from finetune_trainer.data.split import divide

PLAN = SplitPlan(validation=0.2, test=0.2)
NUMBERS = st.sets(st.integers(0, 10_000), min_size=3, max_size=60)
PLANS = st.builds(
    SplitPlan,
    validation=st.sampled_from([0.0, 0.01, 0.1, 0.45]),
    test=st.sampled_from([0.0, 0.01, 0.1, 0.45]),
    seed=st.integers(0, 3),
)


def make_groups(numbers: set[int]) -> list[list[Row]]:
    return [[make_row(Origin("tickets.jsonl", number), {"text": str(number)})] for number in sorted(numbers)]


def sides(splits: dict[str, list[Row]]) -> dict[str, str]:
    return {row.text(): side for side, rows in splits.items() for row in rows}


@given(NUMBERS, PLANS)
def test_every_row_is_on_one_side_and_no_wanted_side_is_empty(numbers: set[int], plan: SplitPlan) -> None:
    splits = divide(make_groups(numbers), plan)
    assert sorted(row.text() for rows in splits.values() for row in rows) == sorted(map(str, numbers))
    assert set(splits) == {"train"} | ({"validation"} if plan.validation else set()) | (
        {"test"} if plan.test else set()
    )


@given(st.sets(st.integers(0, 10_000), max_size=50), st.sets(st.integers(0, 10_000), max_size=50))
def test_a_row_keeps_its_side_when_rows_are_added(some: set[int], more: set[int]) -> None:
    # With these rows every side is filled, so that none has to be moved into an empty one.
    base = set(range(100_000, 100_040))
    before, after = (sides(divide(make_groups(numbers), PLAN)) for numbers in (base | some, base | some | more))
    assert before.items() <= after.items()


@given(NUMBERS, st.randoms(use_true_random=False), PLANS)
def test_order_decides_neither_split_nor_digest(numbers: set[int], shuffle: random.Random, plan: SplitPlan) -> None:
    groups = make_groups(numbers)
    first = divide(groups, plan)
    shuffle.shuffle(groups)
    second = divide(groups, plan)
    assert sides(first) == sides(second)
    assert digest_of(RowFormat.TEXT, first) == digest_of(RowFormat.TEXT, dict(reversed(second.items())))


def test_groups_stay_together() -> None:
    rows = [row for group in make_groups(set(range(300))) for row in group]
    groups = [rows[start : start + 3] for start in range(0, 300, 3)]
    side = sides(divide(groups, PLAN))
    assert {len({side[row.text()] for row in group}) for group in groups} == {1}
    assert set(side.values()) == {"train", "validation", "test"}


def test_fractions_are_met() -> None:
    splits = divide(make_groups(set(range(5000))), PLAN)
    assert {side: round(len(rows) / 5000, 1) for side, rows in splits.items()} == {
        "train": 0.6,
        "validation": 0.2,
        "test": 0.2,
    }


def test_the_seed_decides() -> None:
    groups = make_groups(set(range(100)))
    assert sides(divide(groups, PLAN)) != sides(divide(groups, PLAN.model_copy(update={"seed": 1})))


def test_the_digest_is_over_rows_splits_and_format() -> None:
    groups = make_groups(set(range(10)))
    splits = divide(groups, PLAN)
    digests = {
        digest_of(RowFormat.TEXT, splits),
        digest_of(RowFormat.CLASSIFICATION, splits),
        digest_of(RowFormat.TEXT, {"train": [row for rows in splits.values() for row in rows]}),
        digest_of(RowFormat.TEXT, divide(groups[1:], PLAN)),
    }
    assert len(digests) == 4


def test_a_digest_is_frozen() -> None:
    """A revision's name must not change with a release: this fails when the canonical form does."""
    splits = divide(make_groups({1, 2, 3, 4, 5}), PLAN)
    assert (
        digest_of(RowFormat.TEXT, splits) == "sha256:dceaf2e5daec969306b38dc7be28b1229228a6f437ec6697857a06f500e37b89"
    )
