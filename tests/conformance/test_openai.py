"""What every engine answers to the `openai` client."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.answers import body_kind, outcome
from tests.conformance.engines import Target

PROMPT = "The operator tunes a model and"
MESSAGES = [{"role": "user", "content": "Which module?"}]


def complete(client: openai.OpenAI, model: str, **changes: Any) -> Any:
    asked = {"model": model, "prompt": PROMPT, "max_tokens": 24, "temperature": 0, **changes}
    return client.completions.create(**asked)


def text_of(client: openai.OpenAI, model: str, **changes: Any) -> str:
    return str(complete(client, model, **changes).choices[0].text)


def chat(client: openai.OpenAI, model: str, **changes: Any) -> Any:
    asked = {"model": model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0, **changes}
    return client.chat.completions.create(**asked)


def models(target: Target) -> list[str]:
    return [target.base, *target.adapters]


def test_the_list_of_models(client: openai.OpenAI, target: Target) -> None:
    listed = {model.id for model in client.models.list()}

    assert target.base in listed
    found = "base and adapters" if set(target.adapters) <= listed else "base only"
    assert found == target.expected("the list of models")


def test_the_base_and_each_adapter_answer_in_their_own_way(client: openai.OpenAI, target: Target) -> None:
    assert len({text_of(client, model) for model in models(target)}) == 3
    assert len({chat(client, model).choices[0].message.content for model in models(target)}) == 3


def test_an_unknown_model(client: openai.OpenAI, target: Target) -> None:
    found = outcome(lambda: complete(client, "no-such-adapter"))
    if found == "200":
        same = text_of(client, "no-such-adapter") == text_of(client, target.base)
        found = "the base answers" if same else "something answers"

    assert found == target.expected("an unknown model")


@pytest.mark.parametrize("which", [0, 1, 2], ids=["base", "adapter", "other adapter"])
def test_a_stream_is_the_whole_answer_in_pieces(client: openai.OpenAI, target: Target, which: int) -> None:
    model = models(target)[which]
    pieces = [chunk.choices[0] for chunk in complete(client, model, stream=True) if chunk.choices]
    deltas = [chunk.choices[0].delta for chunk in chat(client, model, stream=True) if chunk.choices]

    assert "".join(piece.text for piece in pieces) == text_of(client, model)
    assert len(pieces) > 1
    assert pieces[-1].finish_reason in {"stop", "length"}
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == chat(client, model).choices[0].message.content


def test_a_stream_ends_with_the_usage_when_asked(client: openai.OpenAI, target: Target) -> None:
    chunks = list(chat(client, target.adapters[0], stream=True, stream_options={"include_usage": True}))

    assert chunks[-1].usage == chat(client, target.adapters[0]).usage


def test_a_stop_sequence_ends_the_answer(client: openai.OpenAI, target: Target) -> None:
    whole = text_of(client, target.adapters[0])
    stop = whole[6:9]

    choice = complete(client, target.adapters[0], stop=[stop]).choices[0]

    assert choice.text == whole[: whole.index(stop)]
    assert choice.finish_reason == "stop"


def test_max_tokens_and_usage(client: openai.OpenAI, target: Target) -> None:
    answer = complete(client, target.adapters[1], max_tokens=3)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3


def test_a_seed_decides_a_sampled_answer(client: openai.OpenAI, target: Target) -> None:
    def sample(seed: int) -> str:
        return text_of(client, target.adapters[0], temperature=1.3, top_p=0.95, seed=seed)

    answers = [sample(seed) for seed in (1, 2, 3, 4)]

    assert answers == [sample(seed) for seed in (1, 2, 3, 4)]
    assert len(set(answers)) > 1


def test_a_tiny_nucleus_is_greedy(client: openai.OpenAI, target: Target) -> None:
    greedy = text_of(client, target.adapters[0])

    assert text_of(client, target.adapters[0], temperature=1, top_p=1e-6, seed=5) == greedy


def test_logprobs_of_a_chat(client: openai.OpenAI, target: Target) -> None:
    choice = chat(client, target.adapters[0], logprobs=True, top_logprobs=2).choices[0]

    assert len(choice.logprobs.content) > 1
    for token in choice.logprobs.content:
        best, second = token.top_logprobs
        assert token.logprob == pytest.approx(best.logprob, abs=1e-3), "a greedy token is the likeliest"
        assert 0 >= best.logprob >= second.logprob


def test_logprobs_of_a_completion(client: openai.OpenAI, target: Target) -> None:
    logprobs = complete(client, target.adapters[0], logprobs=2).choices[0].logprobs

    found = "with alternatives" if logprobs and all(logprobs.top_logprobs) else "none"
    assert found == target.expected("logprobs of a completion")


REFUSALS: dict[str, dict[str, Any]] = {
    "a negative temperature": {"temperature": -1},
    "no tokens wanted": {"max_tokens": 0},
    "more tokens than the context": {"max_tokens": 10_000_000},
}


@pytest.mark.parametrize("question", REFUSALS)
def test_a_refusal(client: openai.OpenAI, target: Target, question: str) -> None:
    assert outcome(lambda: complete(client, target.adapters[0], **REFUSALS[question])) == target.expected(question)


def test_an_unknown_field(client: openai.OpenAI, target: Target) -> None:
    found = outcome(lambda: complete(client, target.base, extra_body={"tempreature": 1}))

    assert found.replace("200", "ignored") == target.expected("an unknown field")


@pytest.mark.parametrize(("question", "changes"), [("two answers", {"n": 2}), ("two prompts", {"prompt": ["a", "b"]})])
def test_several_at_once(client: openai.OpenAI, target: Target, question: str, changes: dict[str, Any]) -> None:
    answers: list[Any] = []
    sampled = {"temperature": 1, **changes}
    found = outcome(lambda: answers.append(complete(client, target.base, **sampled)))

    assert (f"{len(answers[0].choices)} answers" if answers else found) == target.expected(question)


def test_a_wrong_api_key(target: Target) -> None:
    if target.api_key is None:
        pytest.skip("this engine was started without an API key")
    with openai.OpenAI(base_url=f"{target.url}/v1", api_key="sk-wrong", max_retries=0) as stranger:
        found = outcome(lambda: complete(stranger, target.base))

    assert found == target.expected("a wrong API key")


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_probes_and_prometheus_need_no_key(target: Target, path: str) -> None:
    assert httpx.get(target.url + path).status_code == httpx.codes.OK


def raw(target: Target, body: bytes) -> str:
    headers = {"content-type": "application/json", "authorization": f"Bearer {target.api_key}"}
    answer = httpx.post(f"{target.url}/v1/completions", content=body, headers=headers, timeout=60)
    return f"{answer.status_code} {body_kind(answer.content)}"


def test_a_prompt_of_ten_megabytes(client: openai.OpenAI, target: Target) -> None:
    body = {"model": target.base, "prompt": "word " * 2_000_000, "max_tokens": 1}

    assert raw(target, json.dumps(body).encode()) == target.expected("a prompt of 10 MB")
    assert text_of(client, target.base), "and goes on answering others"


def test_bytes_that_are_not_utf_8(target: Target) -> None:
    body = b'{"model": "%s", "prompt": "\xff\xfe", "max_tokens": 1}' % target.base.encode()

    assert raw(target, body) == target.expected("bytes that are not UTF-8")
