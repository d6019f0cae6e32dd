"""What the server answers, through the clients that people use, against plain transformers and peft."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import huggingface_hub
import openai
import pytest
from huggingface_hub import InferenceClient
from openai.types.chat import ChatCompletionMessageParam

from tests.trainer.server.conftest import References
from tests.trainer.server.running import Running

Hub = Callable[..., InferenceClient]
MODELS = ("tiny", "triage", "tickets-v1.2", "docs")
PROMPTS = (
    "The operator",
    "json",
    "A dataset becomes an immutable revision with counts and a report. " * 3,
    "Wie heißt das Modul?",
)


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub's client; offline mode, which other tests rely on, would refuse loopback too."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return InferenceClient


@pytest.fixture
async def async_client(server: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_every_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(MODELS)
    assert client.models.retrieve("tickets-v1.2").id == "tickets-v1.2"


async def test_a_mixed_batch_answers_like_each_model_alone(
    server: Running, async_client: openai.AsyncOpenAI, references: References
) -> None:
    asked = [(model, prompt, 12 + 3 * at) for at, prompt in enumerate(PROMPTS) for model in MODELS]
    forwards = server.metric("tgi_batch_inference_duration_count")

    answers = await asyncio.gather(
        *(
            async_client.completions.create(model=model, prompt=prompt, max_tokens=count, temperature=0, logprobs=0)
            for model, prompt, count in asked
        )
    )

    tokens = sum(answer.usage.completion_tokens for answer in answers if answer.usage)
    assert server.metric("tgi_batch_inference_duration_count") - forwards < tokens / 2, "nothing was batched"
    told = set()
    for (model, prompt, count), answer in zip(asked, answers, strict=True):
        text, logprobs = references.greedy(model, prompt, count)
        choice = answer.choices[0]
        assert choice.text == text, (model, prompt)
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs == pytest.approx(logprobs, abs=1e-4), (model, prompt)
        told.add(text)
    assert len(told) == len(asked), "models that answer alike prove nothing"


@pytest.mark.parametrize("model", MODELS)
def test_chat_is_the_template_then_a_completion(client: openai.OpenAI, references: References, model: str) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Which module?"}]
    rendered = references.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    text, logprobs = references.greedy(model, rendered, 6)

    answer = client.chat.completions.create(
        model=model, messages=messages, max_completion_tokens=6, temperature=0, logprobs=True, top_logprobs=2
    )

    choice = answer.choices[0]
    assert choice.message.content == text
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [token.logprob for token in choice.logprobs.content] == pytest.approx(logprobs, abs=1e-4)
    assert all(token.top_logprobs[0].logprob == token.logprob for token in choice.logprobs.content)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(references.tokenizer.encode(rendered))
    assert answer.usage.completion_tokens == len(logprobs)


@pytest.mark.parametrize("alias", ["tgi", "dummy"])
def test_aliases_are_the_base(client: openai.OpenAI, references: References, alias: str) -> None:
    answer = client.completions.create(model=alias, prompt="json", max_tokens=8, temperature=0)

    assert answer.choices[0].text == references.greedy("tiny", "json", 8)[0]


def test_an_unknown_model_is_not_the_base(client: openai.OpenAI, server: Running) -> None:
    with pytest.raises(openai.NotFoundError, match=r"'triagee' does not exist.*tiny, triage, tickets-v1\.2, docs"):
        client.completions.create(model="triagee", prompt="json")
    answer = server.post("/generate", {"inputs": "json", "parameters": {"adapter_id": "triagee"}})
    assert answer.status_code == 404
    assert "triagee" in answer.json()["error"]


def test_a_stream_is_the_answer_in_pieces(client: openai.OpenAI, references: References) -> None:
    text, logprobs = references.greedy("triage", PROMPTS[0], 20)

    chunks = list(
        client.completions.create(
            model="triage",
            prompt=PROMPTS[0],
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == text
    assert len(chunks) > 4
    assert chunks[-2].choices[0].finish_reason == ("length" if len(logprobs) == 20 else "stop")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(logprobs)


def test_a_chat_stream(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "zip"}]
    asked: dict[str, Any] = {"model": "docs", "messages": messages, "max_tokens": 10, "seed": 7}
    whole = client.chat.completions.create(**asked)

    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)]

    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences_end_the_answer(client: openai.OpenAI, references: References, stream: bool) -> None:
    text, _ = references.greedy("tickets-v1.2", PROMPTS[2], 24)
    stop = text[7:10]
    asked: dict[str, Any] = {"model": "tickets-v1.2", "prompt": PROMPTS[2], "max_tokens": 24, "temperature": 0}
    asked["stop"] = [stop, "\0\0"]

    if stream:
        chunks = list(client.completions.create(**asked, stream=True))
        said, reason = "".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].finish_reason
    else:
        choice = client.completions.create(**asked).choices[0]
        said, reason = choice.text, choice.finish_reason

    assert said == text[: text.index(stop)]
    assert reason == "stop"


async def test_a_seed_decides_whatever_else_is_in_the_batch(async_client: openai.AsyncOpenAI) -> None:

    async def ask(seed: int | None, model: str = "triage") -> str:
        answer = await async_client.completions.create(
            model=model, prompt="json", max_tokens=16, temperature=1.2, top_p=0.95, seed=seed
        )
        return answer.choices[0].text

    alone = await ask(11)
    together = await asyncio.gather(ask(11), ask(12), ask(None), ask(11, "docs"), ask(11), ask(None))

    assert together[0] == together[4] == alone
    assert len(set(together)) == 5


def test_huggingface_hub_text_generation(hub: Hub, server: Running, references: References) -> None:
    client = hub(model=server.url)
    text, logprobs = references.greedy("docs", "The operator", 8)
    asked: dict[str, Any] = {"prompt": "The operator", "max_new_tokens": 8, "adapter_id": "docs"}

    answer = client.text_generation(**asked, details=True)

    assert answer.generated_text == text
    assert [token.logprob for token in answer.details.tokens] == pytest.approx(logprobs, abs=1e-4)
    assert "".join(client.text_generation(**asked, stream=True)) == text
    base = client.text_generation("The operator", max_new_tokens=8)
    assert base == references.greedy("tiny", "The operator", 8)[0]


def test_huggingface_hub_keeps_stop_sequences(hub: Hub, server: Running, references: References) -> None:
    text, _ = references.greedy("docs", PROMPTS[2], 16)
    stop = text[5:7]

    answer = hub(model=server.url).text_generation(PROMPTS[2], max_new_tokens=16, adapter_id="docs", stop=[stop])

    assert answer == text[: text.index(stop) + 2]


@pytest.mark.parametrize("model", ["docs", None])
def test_huggingface_hub_chat(hub: Hub, server: Running, model: str | None) -> None:
    client = hub(base_url=server.url)

    answer = client.chat_completion([{"role": "user", "content": "zip"}], model=model, max_tokens=5)

    assert answer.usage.completion_tokens <= 5
    assert answer.choices[0].message.role == "assistant"


def test_info_and_metrics(server: Running) -> None:
    info = server.get("/info").json()
    assert info["model_id"] == "tiny"
    assert info["max_total_tokens"] == 2048
    before = server.metric('tgi_request_success{model="triage"}')
    server.post("/v1/completions", {"model": "triage", "prompt": "json", "max_tokens": 2})
    assert server.metric('tgi_request_success{model="triage"}') == before + 1
    assert server.metric("tgi_queue_size") == 0


def test_metrics_tell_adapters_apart(server: Running) -> None:
    def counted(adapter: str) -> tuple[float, ...]:
        names = (f'requests_total{{adapter="{adapter}",outcome="success"}}', *_of_tokens(adapter))
        return tuple(server.metric(f"finetune_adapter_{name}") for name in names)

    before, others = counted("docs"), counted("triage")
    body = {"model": "docs", "prompt": [5, 6, 7], "max_tokens": 2, "temperature": 0}
    for _ in range(3):
        assert server.post("/v1/completions", body).status_code == 200
    server.post("/v1/completions", {**body, "model": "nobody's"})

    assert [now - then for now, then in zip(counted("docs"), before, strict=True)] == [3, 9, 6]
    assert counted("triage") == others
    assert all(server.metric(f'finetune_adapter_load_seconds{{adapter="{model}"}}') > 0 for model in MODELS)
    assert "nobody" not in server.get("/metrics").text


def _of_tokens(adapter: str) -> tuple[str, str]:
    return (f'prompt_tokens_total{{adapter="{adapter}"}}', f'generated_tokens_total{{adapter="{adapter}"}}')
