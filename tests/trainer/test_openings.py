"""Prompts that begin alike are answered as they are one by one, and what they share is read once."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from finetune_trainer.evaluate.generate import Batch, greedy_answers, supervised_losses
from finetune_trainer.evaluate.references import References
from finetune_trainer.openings import openings, tokens_read
from finetune_trainer.train.sequences import IGNORED
from tests.trainer import tiny

Prompts = list[list[int]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.build_model(tmp_path_factory.mktemp("model")).eval()


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(3, 340, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def prompts_after(*sizes: int, rows: int = 10) -> Prompts:
    """Prompts of several openings of these sizes, by turns, each with some tokens of its own."""
    begun = [tokens(size, seed) for seed, size in enumerate(sizes)]
    own = [tokens(3 + at % 5, 100 + at) for at in range(rows * len(sizes))]
    return [begun[at % len(sizes)] + each for at, each in enumerate(own)]


def read_by(model: Any, prompts: Prompts, **more: Any) -> tuple[list[list[int]], int]:
    """The answers, and how many tokens of prompts the model read for them."""
    read = 0

    def count(_: Any, __: Any, named: dict[str, Any]) -> None:
        nonlocal read
        read += named["input_ids"].numel() if named["input_ids"].shape[1] > 1 else 0

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        return [each.ids for each in greedy_answers(model, prompts, 6, [2], **more)], read
    finally:
        hook.remove()


def test_prompts_are_told_apart_by_how_they_begin() -> None:
    prompts = [*prompts_after(100, 120), *(tokens(90, 500 + at) for at in range(9))]
    found = openings(prompts)
    assert [sorted({row % 2 for row in each.rows}) for each in found if each.ids] in ([[0], [1]], [[1], [0]])
    assert sorted(len(each.ids) for each in found) == [0, 100, 120]
    assert sorted(row for each in found for row in each.rows) == list(range(29))
    assert tokens_read(prompts) == sum(map(len, prompts)) - 9 * 100 - 9 * 120


def test_an_instruction_before_all_is_shared_where_the_rows_share_no_more() -> None:
    prompts = prompts_after(80, rows=12)
    (found,) = openings(prompts)
    assert (found.rows, len(found.ids)) == (list(range(12)), 80)


@pytest.mark.parametrize(
    "prompts",
    [
        pytest.param(prompts_after(63), id="too little"),
        pytest.param(prompts_after(100, rows=7), id="too few"),
        pytest.param([tokens(100, 0)[:size] for size in range(60, 68)], id="too short"),
        pytest.param([[], [5]], id="nothing"),
    ],
)
def test_what_does_not_pay_is_not_shared(prompts: Prompts) -> None:
    assert [(each.rows, each.ids) for each in openings(prompts)] == [(list(range(len(prompts))), [])]
    assert tokens_read(prompts) == sum(map(len, prompts))


def test_of_equal_prompts_the_last_token_is_each_ones_own() -> None:
    (found,) = openings([tokens(90, 0)] * 9)
    assert len(found.ids) == 89


@torch.no_grad()
def test_answers_are_those_of_one_prompt_at_a_time_and_openings_are_read_once(model: Any) -> None:
    prompts = [*prompts_after(100, 70), *(tokens(20, 700 + at) for at in range(3))]
    alone = [greedy_answers(model, [prompt], 6, [2])[0] for prompt in prompts]
    found, read = read_by(model, prompts)
    assert found == [each.ids for each in alone]
    # Its own tokens are padded to those of the longest beside it.
    assert read == 100 + 70 + 20 * 7 + 3 * 20
    with_logprobs = greedy_answers(model, prompts, 6, [2], with_logprobs=True)
    expected = [greedy_answers(model, [prompt], 6, [2], with_logprobs=True)[0].logprobs for prompt in prompts]
    for each, values in zip(with_logprobs, expected, strict=True):
        assert each.logprobs == pytest.approx(values, abs=1e-4)


@torch.no_grad()
def test_the_cache_of_a_batch_is_bounded_with_what_it_shares(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, sizes = prompts_after(100), list[int]()
    monkeypatch.setattr("finetune_trainer.evaluate.generate.CACHED_TOKENS", 3 * 113 + 5)
    greedy_answers(model, prompts, 6, [2], after_batch=lambda batch: sizes.append(len(batch.rows)))
    assert sizes == [3, 3, 3, 1]


@torch.no_grad()
def test_right_answers_go_on_from_what_is_shared(model: Any) -> None:
    prompts = prompts_after(100, 70)
    rows = [(prompt, tokens(2 + at % 7, 900 + at)) for at, prompt in enumerate(prompts)]
    sequences = [(prompt + answer, [IGNORED] * len(prompt) + answer) for prompt, answer in rows]
    references = References(model, prompts, sequences)
    greedy_answers(model, prompts, 6, [2], after_batch=references.read)
    expected = supervised_losses(model, sequences)
    assert [references.losses[row].tokens for row in range(20)] == [each.tokens for each in expected]
    assert [references.losses[row].total for row in range(20)] == pytest.approx(
        [each.total for each in expected], rel=1e-4
    )


SIZES = {
    "vocab_size": 340, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)), id="sliding windows"),
        pytest.param(LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=DYNAMIC)), id="dynamic angles"),
        pytest.param(MambaForCausalLM(MambaConfig(vocab_size=340, hidden_size=16, num_hidden_layers=1)), id="states"),
    ],
)
@torch.no_grad()
def test_models_that_cannot_go_on_read_every_prompt(other: Any) -> None:
    prompts, batches = prompts_after(100), list[Batch]()
    greedy_answers(other.eval(), prompts, 6, [2], after_batch=batches.append)
    (batch,) = batches
    assert batch.ids.shape == (10, 107)
    assert batch.mask.sum(1).tolist() == [len(prompts[row]) for row in batch.rows]
