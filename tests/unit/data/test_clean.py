"""Duplicates: what is found, what is not, and that neither order nor processes decide."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.cleaning import CleaningPlan
from finetune_contract.datasets import DatasetPlan, DatasetSource, DropReason, RowFormat, SplitPlan
from finetune_trainer.data import near
from finetune_trainer.data.clean import clean, similarity_of
from finetune_trainer.data.inspect import Orders, inspected
from finetune_trainer.data.rows import Account, Origin, make_row
from finetune_trainer.data.shelf import Shelf
from tests.unit.data.conftest import make_text


def make_plan(**wanted: Any) -> DatasetPlan:
    return DatasetPlan(name="a", namespace="b", source=DatasetSource(inline="-"), claim="c", **wanted)


class Cleaned:
    """Texts, through the steps of a dataset pod."""

    def __init__(self, texts: list[str], directory: Path, processes: int = 1, **wanted: Any) -> None:
        self.account = Account()
        plan = make_plan(**wanted)
        rows = [make_row(Origin("tickets.jsonl", line), {"text": text}) for line, text in enumerate(texts, start=1)]
        orders = Orders(plan.cleaning, RowFormat.TEXT, similarity_of(plan))
        with Shelf(directory / "shelf") as shelf:
            for block in inspected(rows, orders, processes):
                shelf.put(block.rows, block.measures, block.bands)
            shelf.sort()
            self.splits = {name: list(part.texts()) for name, part in clean(plan, shelf, self.account).parts.items()}
        self.texts = sorted(text for part in self.splits.values() for text in part)


def shingles(text: str) -> set[str]:
    """The definition, without hashes."""
    found = near.words(text)
    if len(found) < near.SHINGLE_WORDS:
        return set(found or [text])
    return {" ".join(found[at : at + near.SHINGLE_WORDS]) for at in range(len(found) - near.SHINGLE_WORDS + 1)}


def exact_jaccard(left: str, right: str) -> float:
    return len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))


@settings(max_examples=200)
@given(st.lists(st.text(alphabet="ab c\n?如何", max_size=40), min_size=2, max_size=6))
def test_hashed_shingles_are_the_shingles(texts: list[str]) -> None:
    hashes, counts = near.runs_of_words(texts, near.SHINGLE_WORDS, whole_if_short=True)
    ends = np.cumsum(counts)
    for text, start, end in zip(texts, ends - counts, ends, strict=True):
        assert len(set(hashes[start:end].tolist())) == len(shingles(text))
        assert near.shingle_set(text).tolist() == sorted(set(hashes[start:end].tolist()))
    left, right = texts[:2]
    assert near.jaccard(near.shingle_set(left), near.shingle_set(right)) == pytest.approx(exact_jaccard(left, right))


def test_exact_duplicates_are_dropped_once(tmp_path: Path) -> None:
    cleaned = Cleaned(["a", "b", "a", "a"], tmp_path)
    assert cleaned.texts == ["a", "b"]
    assert cleaned.account.counts == {DropReason.EXACT_DUPLICATE: 2}
    assert [(drop.origin.line, drop.detail) for drop in cleaned.account.drops] == [
        (3, "tickets.jsonl line 1"),
        (4, "tickets.jsonl line 1"),
    ]


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    originals = [" ".join(make_text(3 * number + part) for part in range(3)) for number in range(150)]
    # Cutting two of 36 words leaves 30 of 32 shingles.
    planted = [" ".join(text.split()[:-2]) for text in originals[:60]]
    cleaned = Cleaned(originals + planted, tmp_path, near_duplicate_similarity=0.85)
    assert cleaned.account.counts[DropReason.NEAR_DUPLICATE] >= 59
    assert len(cleaned.texts) == len(originals) + len(planted) - len(cleaned.account.drops)
    kept = cleaned.texts
    assert all(exact_jaccard(left, right) < 0.85 for number, left in enumerate(kept[:60]) for right in kept[:number])


@pytest.mark.parametrize("similarity", [0.5, 0.85])
def test_short_and_wordless_texts_are_not_mistaken_for_each_other(similarity: float, tmp_path: Path) -> None:
    texts = ["?!", "!!", "\N{GRINNING FACE}", "yes", "no", "thank you", "order 1", "invoice 2"]
    assert Cleaned(texts, tmp_path, near_duplicate_similarity=similarity).texts == sorted(texts)


@pytest.mark.parametrize("similarity", [0.95, 1.0])
def test_a_high_similarity_still_finds_what_is_there(similarity: float, tmp_path: Path) -> None:
    texts = [make_text(number) for number in range(40)]
    cleaned = Cleaned(texts + [text.upper() for text in texts], tmp_path, near_duplicate_similarity=similarity)
    assert cleaned.account.counts[DropReason.NEAR_DUPLICATE] == 40


def test_copies_that_may_stay_go_with_what_they_nearly_repeat(tmp_path: Path) -> None:
    texts = [make_text(1), make_text(1), make_text(1).upper()]
    cleaned = Cleaned(texts, tmp_path, near_duplicate_similarity=0.9, exact_duplicates=False)
    assert len(cleaned.texts) == 1
    assert cleaned.account.counts == {DropReason.NEAR_DUPLICATE: 2}


def groups_of(texts: list[str], similarity: float) -> list[int]:
    buckets = near.Buckets(iter(near.banding(similarity).keys(texts)), len(texts))
    first_of = near.near_groups(buckets, near.Comparer(texts.__getitem__, similarity))
    return [first_of.get(number, number) for number in range(len(texts))]


def test_similar_rows_are_grouped_by_way_of_others() -> None:
    words = make_text(1).split() + make_text(2).split() + make_text(3).split()
    chain = [" ".join(words[start : start + 30]) for start in (0, 2, 4, 6)]
    assert exact_jaccard(chain[0], chain[-1]) < 0.8 <= exact_jaccard(chain[0], chain[1])
    assert groups_of([*chain, make_text(9), make_text(9)], 0.8) == [0, 0, 0, 0, 4, 4]


def test_equal_rows_are_on_one_side(tmp_path: Path) -> None:
    texts = [make_text(1)] * 1000 + [make_text(2)]
    cleaned = Cleaned(texts, tmp_path, exact_duplicates=False, split=SplitPlan(test=0.2))
    assert sorted(map(len, cleaned.splits.values())) == [1, 1000]


@settings(max_examples=30)
@given(st.lists(st.text(alphabet="ab ?\n", max_size=12), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_decide(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], shuffle: random.Random
) -> None:
    shuffled = list(texts)
    shuffle.shuffle(shuffled)
    directory = tmp_path_factory.mktemp("shelves")
    found = [Cleaned(order, directory, near_duplicate_similarity=0.7).texts for order in (texts, shuffled)]
    assert found[0] == found[1]


def test_the_number_of_processes_does_not_decide(tmp_path: Path) -> None:
    texts = [make_text(number) for number in range(4000)] + [make_text(number).upper() for number in range(4500)]
    found = [
        Cleaned(texts, tmp_path, processes, near_duplicate_similarity=0.8, split=SplitPlan(test=0.1))
        for processes in (1, 2)
    ]
    assert found[0].splits == found[1].splits
    assert found[0].account.drops == found[1].account.drops
    assert found[0].account.counts[DropReason.NEAR_DUPLICATE] > 3900


# --- contamination ---


def test_train_rows_that_hold_a_piece_of_a_held_out_row_go(tmp_path: Path) -> None:
    texts = [f"{make_text(number)} {make_text(number + 500)}" for number in range(60)]
    quoting = [f"{make_text(number + 900)} as was said: {text}" for number, text in enumerate(texts)]
    settings: dict[str, Any] = {"split": SplitPlan(test=0.3), "exact_duplicates": True}
    cleaning = CleaningPlan(decontaminate_ngram=13)
    cleaned = Cleaned(texts + quoting, tmp_path, cleaning=cleaning, **settings)
    gone = cleaned.account.counts[DropReason.CONTAMINATED]
    assert gone > 5
    held_out = [set(zip(*(near.words(text)[at:] for at in range(13)), strict=False)) for text in cleaned.splits["test"]]
    for text in cleaned.splits["train"]:
        own = set(zip(*(near.words(text)[at:] for at in range(13)), strict=False))
        assert not any(own & other for other in held_out)
    assert Cleaned(texts + quoting, tmp_path, **settings).account.counts[DropReason.CONTAMINATED] == 0
    drop = next(drop for drop in cleaned.account.drops if drop.reason is DropReason.CONTAMINATED)
    assert drop.detail.startswith("shares 13 words with tickets.jsonl line ")


def test_a_template_that_all_rows_share_is_no_contamination(tmp_path: Path) -> None:
    template = "please read the following ticket with care and answer with one of the eight labels below"
    texts = [f"{template} {make_text(number)}" for number in range(60)]
    cleaned = Cleaned(texts, tmp_path, cleaning=CleaningPlan(decontaminate_ngram=13), split=SplitPlan(test=0.3))
    assert len(cleaned.texts) == 60
