"""Rows that join and leave a running batch, against the same rows alone and against plain transformers."""

from collections.abc import Sequence
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from finetune_server.decoding import Batch, Row, decode
from finetune_server.model import BASE, LanguageModel
from finetune_server.requests import GenerationRequest, Token
from finetune_server.sampling import Sampling
from tests.trainer.server.tiny import Shop, greedy

ADAPTERS = (BASE, "adapter_0000", "adapter_0001", "adapter_0002")


def request(number: int, **changes: object) -> GenerationRequest:
    """Of another model, length and kind of sampling than its neighbours."""
    random = Random(number)
    settings: dict[str, object] = {
        "model": "any",
        "adapter": ADAPTERS[number % 4],
        "prompt": [random.randrange(3, 300) for _ in range(random.choice([1, 3, 17, 60]))],
        "max_tokens": random.choice([1, 2, 9, 30, 90]),
        "sampling": Sampling(temperature=0.8, top_p=0.9, seed=number) if number % 3 == 0 else Sampling(),
        "top_logprobs": number % 2,
    }
    return GenerationRequest(**{**settings, **changes})  # type: ignore[arg-type]


def alone(model: LanguageModel, asked: GenerationRequest) -> list[Token]:
    return [token for answers in decode(model, [Row(asked, model)]) for _, token in answers]


def assert_alike(found: Sequence[Token], wanted: Sequence[Token]) -> None:
    assert [(token.id, token.text, token.finish) for token in found] == [
        (token.id, token.text, token.finish) for token in wanted
    ]
    assert [token.logprob for token in found] == pytest.approx([token.logprob for token in wanted], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_rows_answer_as_if_alone_whoever_comes_and_goes(loaded: LanguageModel, seed: int) -> None:
    random = Random(seed)
    rows = [Row(request(100 * seed + at), loaded) for at in range(14)]
    waiting, found = list(rows), {id(row): list[Token]() for row in rows}
    batch = Batch(loaded)

    while waiting or batch.rows:
        joining = [waiting.pop() for _ in range(min(len(waiting), random.choice([0, 0, 0, 0, 1, 2, 3])))]
        for row, token in [*batch.join(joining), *batch.step()]:
            found[id(row)].append(token)
        if batch.rows and random.random() < 0.03:
            random.choice(batch.rows).is_cancelled = True

    for row in rows:
        wanted = alone(loaded, row.request)
        assert_alike(found[id(row)], wanted[: len(found[id(row)])] if row.is_cancelled else wanted)


def test_long_answers_are_those_of_plain_transformers(shop: Shop, loaded: LanguageModel) -> None:
    """Longer than a layer has room for at first, beside a row that came later and one that left."""
    tokenizer = AutoTokenizer.from_pretrained(shop.base_path)
    model = AutoModelForCausalLM.from_pretrained(shop.base_path, dtype=torch.float32).eval()
    text, logprobs = greedy(model, tokenizer, "The operator", 150)
    long = Row(request(0, prompt=tokenizer.encode("The operator"), max_tokens=150, sampling=Sampling()), loaded)
    batch = Batch(loaded)
    found = [token for row, token in batch.join([long, Row(request(1, max_tokens=40), loaded)]) if row is long]

    while batch.rows:
        if len(found) == 20:
            batch.join([Row(request(2, max_tokens=30), loaded)])
        found += [token for row, token in batch.step() if row is long]

    assert "".join(token.text for token in found) == text
    assert [token.logprob for token in found] == pytest.approx(logprobs, abs=1e-4)


def test_prompts_that_cannot_be_read_leave_the_batch_as_it_was(
    loaded: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(1, max_tokens=30)
    batch = Batch(loaded)
    found = [token for _, token in [*batch.join([Row(asked, loaded)]), *batch.step()]]
    with monkeypatch.context() as patch:
        patch.setattr(loaded, "forward", lambda *_arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            batch.join([Row(request(2), loaded)])

    while batch.rows:
        found += [token for _, token in batch.step()]

    assert_alike(found, alone(loaded, asked))


def test_a_cache_that_nobody_can_join_is_closed_until_it_is_empty(shop: Shop) -> None:
    """Sliding windows: rows are read together, leave one by one, and the next ones wait."""
    tokenizer = AutoTokenizer.from_pretrained(shop.base_path)
    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=12,
        initializer_range=0.3,
    )
    model = LanguageModel(MistralForCausalLM(config).eval(), tokenizer, {})
    asked = [request(at, adapter=BASE, max_tokens=5 + 9 * at) for at in range(4)]
    rows = [Row(one, model) for one in asked]
    batch = Batch(model)
    assert batch.is_open
    found = {id(row): [token] for row, token in batch.join(rows)}

    while batch.rows:
        assert not batch.is_open
        for row, token in batch.step():
            found[id(row)].append(token)

    assert batch.is_open
    for row in rows:
        assert_alike(found[id(row)], alone(model, row.request))
