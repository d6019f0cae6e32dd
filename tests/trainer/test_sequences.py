import random
from typing import Any

import numpy as np
import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import Hyperparameters
from finetune_trainer.train.render import Tokens
from finetune_trainer.train.sequences import IGNORED, TrainingData, build_training_data, choose_lengths

CONTEXT = 256


def settings(**changes: Any) -> Hyperparameters:
    return Hyperparameters(epochs=1, learning_rate=1e-3, global_batch_size=8, **changes)


def completion(prompt: int, answer: int, first: int = 100) -> Tokens:
    ids = list(range(first, first + prompt + answer))
    return Tokens(ids, [False] * prompt + [True] * answer)


def text(length: int, first: int = 100) -> Tokens:
    return completion(0, length, first)


def build(rows: list[Tokens], *, split_long: bool = False, share: float = 0.01, **changes: Any) -> TrainingData:
    return build_training_data(rows, settings(**changes), CONTEXT, share, split_long=split_long)


def supervised_ids(data: TrainingData) -> list[int]:
    return sorted(label for row in data.dataset for label in row["labels"] if label != IGNORED)


@pytest.mark.parametrize("packing", [False, True], ids=["unpacked", "packed"])
def test_exactly_the_completions_are_supervised(packing: bool) -> None:
    rows = [completion(3, 2, 100), completion(4, 1, 200), completion(1, 3, 300)]
    data = build(rows, packing=packing)
    assert supervised_ids(data) == [103, 104, 204, 301, 302, 303]
    assert data.supervised_tokens == 6
    assert (data.truncated_tokens, data.truncated_rows) == (0, 0)
    assert len(data.dataset) == (1 if packing else 3)


def test_labels_stand_where_their_ids_stand_in_a_pack() -> None:
    data = build([completion(3, 2, 100), completion(1, 3, 300)], packing=True)
    (pack,) = data.dataset
    assert sorted(pack["seq_lengths"]) == [4, 5]
    assert all(label in (IGNORED, token) for token, label in zip(pack["input_ids"], pack["labels"], strict=True))


def test_the_first_token_of_a_piece_is_never_a_target() -> None:
    data = build([text(5)], split_long=True, packing=True)
    assert supervised_ids(data) == [101, 102, 103, 104]


@pytest.mark.parametrize("packing", [False, True], ids=["unpacked", "packed"])
def test_long_texts_are_split_and_no_token_is_lost(packing: bool) -> None:
    rows = [text(1000, 1000), text(30, 5000), text(257, 9000)]
    data = build(rows, split_long=True, packing=packing)
    tokens = sorted(token for row in data.dataset for token in row["input_ids"])
    assert tokens == sorted(token for row in rows for token in row.ids)
    assert (data.truncated_tokens, data.truncated_rows) == (0, 0)
    assert max(len(row["input_ids"]) for row in data.dataset) <= CONTEXT


@pytest.mark.parametrize("seed", range(5))
def test_packing_keeps_every_piece_whole_and_fills_its_packs(seed: int) -> None:
    pick = random.Random(seed)
    rows = [text(min(256, max(2, round(pick.lognormvariate(3.3, 1.0)))), 1000 * number) for number in range(400)]
    data = build(rows, packing=True)
    found = [
        tuple(pack["input_ids"][end - length : end])
        for pack in data.dataset
        for length, end in zip(pack["seq_lengths"], np.cumsum(pack["seq_lengths"]), strict=True)
    ]
    assert sorted(found) == sorted(tuple(row.ids) for row in rows), "not one is cut, lost, or there twice"
    tokens = sum(len(row.ids) for row in rows)
    assert data.tokens == tokens
    # Best fit decreasing: at most one pack more than the tokens need, where most pieces are short.
    assert len(data.dataset) <= -(-tokens // CONTEXT) + 1


def test_rows_that_are_left_out_are_counted() -> None:
    data = build([completion(12, 3), completion(5, 2)], share=0.9, max_length=10, packing=False)
    assert (data.dropped_rows, data.tokens + data.truncated_tokens) == (1, 22)


def test_cut_tokens_are_counted() -> None:
    data = build([completion(5, 20), completion(5, 2)], share=0.5, max_length=10, packing=False)
    assert (data.tokens, data.truncated_tokens, data.truncated_rows) == (17, 15, 1)


def test_a_row_whose_answer_is_cut_off_counts_as_cut_whole() -> None:
    data = build([completion(12, 3), completion(5, 2)], share=0.9, max_length=10, packing=False)
    assert (len(data.dataset), data.truncated_tokens, data.truncated_rows) == (1, 15, 1)


def test_too_much_truncation_is_refused_with_its_numbers() -> None:
    with pytest.raises(FineTuneError) as caught:
        build([completion(5, 20), completion(5, 2)], max_length=10, packing=False)
    assert caught.value.reason is FailureReason.DATA_TRUNCATED
    assert "10 tokens would cut 15 of 32 tokens (46.9%) in 1 rows; limits.truncatedShare allows 1.0%" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("lengths", "changes", "share", "expected"),
    [
        pytest.param([10] * 100, {"packing": False}, 0.01, (64, 64), id="rounded up to 64"),
        pytest.param([10] * 99 + [200], {"packing": False}, 0.2, (64, 64), id="p99, not the longest"),
        pytest.param([10] * 99 + [200], {"packing": False}, 0.0, (256, 256), id="longer when less may be cut"),
        pytest.param([10] * 100, {}, 0.01, (256, 256), id="packs fill the context"),
        pytest.param([900] * 100, {"packing": False}, 1.0, (256, 256), id="never beyond the context"),
        pytest.param([10] * 100, {"max_length": 32}, 0.01, (32, 32), id="as asked"),
    ],
)
def test_lengths(lengths: list[int], changes: dict[str, Any], share: float, expected: tuple[int, int]) -> None:
    assert choose_lengths(np.array(lengths), settings(**changes), CONTEXT, share) == expected


def test_auto_never_chooses_a_length_that_is_then_refused() -> None:
    data = build([completion(20, 1)] * 99 + [completion(150, 1)], packing=False)
    assert (data.sequence_length, data.truncated_rows) == (192, 0)


def test_packs_of_a_long_context_stay_usual() -> None:
    assert choose_lengths(np.array([10] * 100), settings(), 100_000, 0.01) == (1024, 1024)


def test_a_length_beyond_the_context_is_refused() -> None:
    with pytest.raises(FineTuneError, match=r"spec\.hyperparameters\.maxLength: 512 .* use at most 256") as caught:
        build([completion(5, 5)], max_length=512)
    assert caught.value.reason is FailureReason.INVALID_PLAN


def test_no_rows_are_refused() -> None:
    with pytest.raises(FineTuneError, match="no rows"):
        build([])


@pytest.mark.parametrize("packing", [False, True], ids=["unpacked", "packed"])
def test_a_length_that_leaves_no_answer_at_all_is_named(packing: bool) -> None:
    with pytest.raises(FineTuneError, match="maxLength: 8 tokens would cut 80 of 80 tokens") as caught:
        build([completion(19, 1)] * 4, max_length=8, packing=packing)
    assert caught.value.reason is FailureReason.DATA_TRUNCATED
