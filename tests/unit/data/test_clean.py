"""Duplicates: none is missed because of the order, none is removed for looking alike to a hash."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.datasets import DropReason
from finetune_trainer.data.clean import (
    jaccard,
    near_groups,
    shingles,
    without_exact_duplicates,
    without_near_duplicates,
)
from finetune_trainer.data.rows import Account, Origin, Row, make_row
from tests.unit.data.conftest import make_text


def make_rows(texts: list[str]) -> list[Row]:
    rows = (make_row(Origin("tickets.jsonl", line), {"text": text}) for line, text in enumerate(texts, start=1))
    return sorted(rows, key=lambda row: row.digest)


def texts_of(rows: list[Row]) -> set[str]:
    return {row.text() for row in rows}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two, three four five SIX", {"one two three four five", "two three four five six"}),
        ("one two three four five", {"one two three four five"}),
        ("Reset my password", {"reset", "my", "password"}),
        ("如何重置密码", {"如 何 重 置 密", "何 重 置 密 码"}),
        ("?!", {"?!"}),
    ],
    ids=["words", "just enough", "short", "no spaces", "no words"],
)
def test_shingles(text: str, expected: set[str]) -> None:
    assert shingles(text) == expected


def test_exact_duplicates_are_dropped_once() -> None:
    account = Account()
    rows = make_rows(["a", "b", "a", "a"])
    assert texts_of(list(without_exact_duplicates(rows, account))) == {"a", "b"}
    assert account.counts == {DropReason.EXACT_DUPLICATE: 2}


def test_planted_near_duplicates_are_found_and_nothing_else() -> None:
    originals = [" ".join(make_text(3 * number + part) for part in range(3)) for number in range(150)]
    # Cutting two of 36 words leaves 30 of 32 shingles.
    planted = [" ".join(text.split()[:-2]) for text in originals[:60]]
    account = Account()
    kept = without_near_duplicates(make_rows(originals + planted), 0.85, account)
    assert account.counts[DropReason.NEAR_DUPLICATE] >= 59
    assert len(kept) == len(originals) + len(planted) - len(account.drops)
    assert all(
        jaccard(shingles(left.text()), shingles(right.text())) < 0.85
        for number, left in enumerate(kept[:60])
        for right in kept[:number]
    )


@pytest.mark.parametrize("similarity", [0.5, 0.85])
def test_short_and_wordless_texts_are_not_mistaken_for_each_other(similarity: float) -> None:
    texts = ["?!", "!!", "\N{GRINNING FACE}", "yes", "no", "thank you", "order 1", "invoice 2"]
    assert texts_of(without_near_duplicates(make_rows(texts), similarity, Account())) == set(texts)


@pytest.mark.parametrize("similarity", [0.95, 1.0])
def test_a_high_similarity_still_finds_what_is_there(similarity: float) -> None:
    texts = [make_text(number) for number in range(40)]
    account = Account()
    without_near_duplicates(make_rows(texts + [text.upper() for text in texts]), similarity, account)
    assert account.counts[DropReason.NEAR_DUPLICATE] == 40


def test_similar_rows_are_grouped_by_way_of_others() -> None:
    words = make_text(1).split() + make_text(2).split() + make_text(3).split()
    chain = [" ".join(words[start : start + 30]) for start in (0, 2, 4, 6)]
    ends = [shingles(chain[0]), shingles(chain[-1])]
    assert jaccard(*ends) < 0.8 <= jaccard(shingles(chain[0]), shingles(chain[1]))
    groups = near_groups(make_rows([*chain, make_text(9), make_text(9)]), 0.8)
    assert sorted(len(group) for group in groups) == [2, 4]


def test_a_thousand_equal_rows_are_grouped_at_once() -> None:
    assert [len(group) for group in near_groups(make_rows([make_text(1)] * 1000), 0.85)] == [1000]


@settings(max_examples=30)
@given(st.lists(st.text(alphabet="ab ?\n", max_size=12), max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_decide(texts: list[str], shuffle: random.Random) -> None:
    shuffled = list(texts)
    shuffle.shuffle(shuffled)
    kept = [texts_of(without_near_duplicates(make_rows(order), 0.7, Account())) for order in (texts, shuffled)]
    assert kept[0] == kept[1]
    groups = [{frozenset(texts_of(g)) for g in near_groups(make_rows(order), 0.7)} for order in (texts, shuffled)]
    assert groups[0] == groups[1]
