"""What many prompts begin with is read once, and their answers are those of the whole prompts."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from finetune_batch.answering import Batches
from finetune_batch.asking import Ask
from finetune_batch.items import Item
from finetune_contract.base import StoredReference
from finetune_server import openai_shape as shape
from finetune_server.decoding import Batch, Row, read_opening
from finetune_server.model import BASE, LanguageModel, Served, load
from finetune_server.requests import GenerationRequest, Token
from finetune_server.sampling import Sampling
from tests.trainer.batch.requests import completion, files_of, plan_of, run, write
from tests.trainer.server.tiny import Shop, quiet

TUNED = "adapter"


@pytest.fixture(scope="module")
def model(origin_shop: tuple[Shop, StoredReference]) -> LanguageModel:
    shop, adapter = origin_shop
    served = [Served("base", BASE, str(shop.base_path)), Served("tuned", TUNED, str(shop.store.path(adapter)))]
    with quiet():
        return load(served)


def tokens(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(3, 300), k=count)


def request(prompt: list[int], adapter: str = BASE, number: int = 0, **more: Any) -> GenerationRequest:
    """Every third is sampled."""
    sampling = Sampling(temperature=0.9, top_p=0.95, seed=number) if number % 3 == 2 else Sampling()
    settings: dict[str, Any] = {"max_tokens": 1 + 7 * (number % 3), "sampling": sampling, "top_logprobs": 2, **more}
    return GenerationRequest(model="any", adapter=adapter, prompt=prompt, **settings)


def asks_of(prompts: Sequence[list[int]], adapter: str = BASE, **more: Any) -> list[Ask]:
    return [
        Ask(Item(at, "here"), request(prompt, adapter, at, **more), shape.Completion(logprobs=False))
        for at, prompt in enumerate(prompts)
    ]


def prompts_of(*begun: list[int], rows: int = 40) -> list[list[int]]:
    """Prompts of several openings by turns, each with one to nine tokens of its own."""
    return [begun[at % len(begun)] + tokens(1 + at % 9, 100 + at) for at in range(rows * len(begun))]


def answered(batches: Batches, asks: Sequence[Ask]) -> list[list[Token]]:
    found = dict(batches.answer(asks))
    return [found[at] for at in range(len(asks))]


def whole(model: LanguageModel) -> Batches:
    """As it was before anything was shared."""
    batches = Batches(model)
    batches.shares = False
    return batches


@contextmanager
def reading(model: LanguageModel) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of each forward pass over prompts."""
    read: list[tuple[int, int]] = []
    real = model.forward

    def forward(ids: torch.Tensor, *more: Any) -> Any:
        if ids.shape[1] > 1:
            read.append((ids.shape[0], ids.shape[1]))
        return real(ids, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "forward", forward)
        yield read


def assert_alike(found: list[list[Token]], wanted: list[list[Token]]) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert [(token.id, token.text, token.finish) for token in mine] == [
            (token.id, token.text, token.finish) for token in theirs
        ]
        assert [token.logprob for token in mine] == pytest.approx([token.logprob for token in theirs], abs=1e-4)
        assert [[each.id for each in token.top] for token in mine] == [
            [each.id for each in token.top] for token in theirs
        ]


@pytest.mark.parametrize("adapter", [BASE, TUNED])
def test_answers_are_those_of_whole_prompts(model: LanguageModel, adapter: str) -> None:
    """Two openings and rows of none, greedy and sampled, answers of one token and of more than one."""
    prompts = [*prompts_of(tokens(100, 1), tokens(150, 2)), *(tokens(20, 900 + at) for at in range(5))]
    random.Random(0).shuffle(prompts)
    asks = asks_of(prompts, adapter)
    wanted = answered(whole(model), asks)
    assert_alike(answered(Batches(model), asks), wanted)
    other = answered(Batches(model), asks_of(prompts, TUNED if adapter == BASE else BASE))
    assert [token.id for each in other for token in each] != [token.id for each in wanted for token in each]


def test_an_opening_is_read_once_for_a_shard_and_not_for_each_row(model: LanguageModel) -> None:
    prompts = [*prompts_of(tokens(300, 1), tokens(150, 2)), *(tokens(20, 900 + at) for at in range(5))]
    batches = Batches(model)
    with reading(model) as read:
        answered(batches, asks_of(prompts, TUNED))
    assert sorted(read) == sorted([(1, 300), (40, 9), (1, 150), (40, 9), (5, 20)])


def test_more_batches_than_one_go_on_from_one_reading_longest_first(model: LanguageModel) -> None:
    prompts = prompts_of(tokens(400, 1), rows=150)
    batches = Batches(model)
    with reading(model) as read:
        answered(batches, asks_of(prompts, max_tokens=20))
    held = batches.limits.held // (400 + 9 + 20)
    assert read[0] == (1, 400)
    assert read[1] == (held, 9)
    assert sum(rows for rows, _ in read[1:]) == 150
    assert [size for _, size in read[1:]] == sorted((size for _, size in read[1:]), reverse=True)


def test_few_rows_that_begin_alike_stay_beside_the_others(model: LanguageModel) -> None:
    """Else a GPU's batches would get small: a shard of many openings would be answered some rows at a time."""
    prompts = prompts_of(*(tokens(100, seed) for seed in range(10)), rows=12)
    batches = Batches(model)
    batches.limits = batches.limits._replace(alike=32)
    with reading(model) as read:
        answered(batches, asks_of(prompts, max_tokens=2))
    assert sum(rows for rows, _ in read) == 120
    assert all(size > 100 for _, size in read)


def test_rows_leave_a_batch_that_was_begun_as_they_leave_any_other(model: LanguageModel) -> None:
    """The longest leaves first, so that what is held gets narrower, and answers outgrow the room of a layer."""
    begun = tokens(90, 1)
    prompts = [begun + tokens(60 - 5 * at, 200 + at) for at in range(12)]
    asks = [
        Ask(Item(at, "here"), request(prompt, TUNED, max_tokens=2 + 9 * at), shape.Completion(logprobs=False))
        for at, prompt in enumerate(prompts)
    ]
    assert_alike(answered(Batches(model), asks), answered(whole(model), asks))


def test_rows_that_were_begun_join_a_running_batch(model: LanguageModel) -> None:
    begun = tokens(90, 1)
    opened = read_opening(model, begun, TUNED)
    mine = [Row(request(begun + tokens(3 + 4 * at, at), TUNED, max_tokens=12), model) for at in range(3)]
    others = [Row(request(tokens(5 + 120 * at, at), BASE, max_tokens=20), model) for at in range(2)]
    found: dict[int, list[Token]] = {id(row): [] for row in (*mine, *others)}
    batch = Batch(model)
    steps = [batch.join(others), batch.step(), batch.join(mine, opened)]
    while batch.rows:
        steps.append(batch.step())
    for row, token in (each for step in steps for each in step):
        found[id(row)].append(token)
    for row in (*mine, *others):
        (wanted,) = answered(whole(model), [Ask(Item(0, ""), row.request, shape.Completion(logprobs=False))])
        assert_alike([found[id(row)]], [wanted])


@pytest.mark.parametrize(
    ("prompt", "adapter"),
    [
        pytest.param([*range(10, 74), 5], BASE, id="of another model"),
        pytest.param([*range(11, 75), 5], TUNED, id="that begins otherwise"),
        pytest.param([*range(10, 74)], TUNED, id="without a token of its own"),
    ],
)
def test_a_row_never_goes_on_from_what_is_not_its_own(model: LanguageModel, prompt: list[int], adapter: str) -> None:
    opened = read_opening(model, [*range(10, 74)], TUNED)
    with pytest.raises(ValueError, match="not what was read before"):
        Batch(model).join([Row(request(prompt, adapter), model)], opened)


@pytest.mark.parametrize("fault", ["rows", "going on", "opening"])
def test_memory_that_runs_out_makes_batches_smaller_or_gives_up_what_was_read(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """With more than three rows; whenever rows go on from what was read; when that is read."""
    asks = asks_of(prompts_of(tokens(100, 1), rows=10))
    wanted, batches = answered(whole(model), asks), Batches(model)
    real, read = model.forward, list[tuple[int, int]]()

    def forward(ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, adapters: Any, cache: Any) -> Any:
        rows, size = ids.shape
        if size > 1:
            read.append((rows, size))
        is_going_on = cache is not None and size > 1
        if {"rows": rows > 3, "going on": is_going_on, "opening": (rows, size) == (1, 100)}[fault]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(ids, mask, positions, adapters, cache)

    monkeypatch.setattr(model, "forward", forward)
    assert_alike(answered(batches, asks), wanted)
    expected = {
        "rows": [(1, 100), (10, 9), (5, 9), (2, 9), (2, 8), (2, 5), (2, 7)],
        "going on": [(1, 100), (10, 9), (5, 9), (2, 9), (1, 9), (1, 109)],
        "opening": [(1, 100), (10, 109)],
    }[fault]
    assert read[: len(expected)] == expected
    assert all(size < 100 for _, size in read[1:]) == (fault == "rows")


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
    ],
)
def test_models_that_cannot_go_on_read_every_prompt(other: Any, model: LanguageModel) -> None:
    tokenizer: PreTrainedTokenizerFast = model.tokenizer
    theirs = LanguageModel(other.eval(), tokenizer, {})
    with reading(theirs) as read:
        answered(Batches(theirs), asks_of(prompts_of(tokens(100, 1), rows=12)))
    assert read == [(12, 109)]


def test_a_batch_is_written_as_before_and_as_when_it_goes_on(
    shop: Shop, adapter: StoredReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From requests to files; the shards of a second run are answered anew and are equal byte by byte."""
    begun = tokens(120, 1)
    lines = [completion(at, begun + tokens(2 + at % 7, at), temperature=float(at % 2)) for at in range(40)]
    source = write(tmp_path / "source/a.jsonl", lines).parent
    plan = plan_of(shop, adapter, shard_rows=16)
    output, errors = files_of(shop, run(shop, plan, source))
    again, _ = files_of(shop, run(shop, plan.model_copy(update={"key": "again"}), source))
    monkeypatch.setattr("finetune_batch.run.Batches", whole)
    expected, _ = files_of(shop, run(shop, plan.model_copy(update={"key": "whole"}), source))
    assert errors == []
    choices = [[json.dumps(line["response"]["body"]["choices"]) for line in each] for each in (output, again, expected)]
    assert choices[0] == choices[1] == choices[2]
    usage = [[line["response"]["body"]["usage"] for line in each] for each in (output, expected)]
    assert usage[0] == usage[1]
