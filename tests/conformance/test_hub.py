"""What every engine answers to `huggingface_hub`'s client."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, TextGenerationError

from tests.conformance.engines import Target

PROMPT = "The operator"


def test_chat_with_the_base_and_an_adapter(chat_hub: InferenceClient, target: Target) -> None:
    said = {
        model: chat_hub.chat_completion([{"role": "user", "content": "zip"}], model=model, max_tokens=12, temperature=0)
        for model in (target.base, *target.adapters)
    }

    assert len({answer.choices[0].message.content for answer in said.values()}) == 3
    assert all(0 < answer.usage.completion_tokens <= 12 for answer in said.values())


def test_a_chat_stream(chat_hub: InferenceClient, target: Target) -> None:
    messages = [{"role": "user", "content": "zip"}]
    asked: dict[str, Any] = {"messages": messages, "model": target.adapters[0], "max_tokens": 12, "seed": 3}
    whole = chat_hub.chat_completion(**asked).choices[0].message.content

    chunks = chat_hub.chat_completion(**asked, stream=True)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole


def test_an_unknown_model_says_so(chat_hub: InferenceClient, target: Target) -> None:
    messages = [{"role": "user", "content": "zip"}]
    expected = target.expected("an unknown model")
    if expected == "the base answers":
        answers = [
            chat_hub.chat_completion(messages, model=model, max_tokens=12, temperature=0)
            for model in ("no-such-adapter", target.base)
        ]
        assert len({answer.choices[0].message.content for answer in answers}) == 1
    else:
        with pytest.raises(HfHubHTTPError, match="404"):
            chat_hub.chat_completion(messages, model="no-such-adapter", max_tokens=4)


def found(ask: Callable[[], object]) -> str:
    try:
        ask()
    except HfHubHTTPError as error:
        return str(error.response.status_code)
    except TextGenerationError as error:
        # The client's own class, made of TGI's error body; what it was made from knows the status.
        answer = getattr(error.__cause__, "response", None)
        return str(answer.status_code if answer is not None else error)
    return "answers"


def test_text_generation(text_hub: InferenceClient, client: openai.OpenAI, target: Target) -> None:
    def ask(adapter: str | None, **changes: Any) -> Any:
        return text_hub.text_generation(PROMPT, max_new_tokens=10, adapter_id=adapter, **changes)

    answered = found(lambda: ask(target.adapters[0]))
    assert answered == target.expected("text_generation")
    if answered == "answers":
        same = client.completions.create(model=target.adapters[0], prompt=PROMPT, max_tokens=10, temperature=0)
        assert ask(target.adapters[0]) == same.choices[0].text, "both routes lead to the same adapter"
        assert "".join(ask(target.adapters[0], stream=True)) == ask(target.adapters[0])
        assert len({str(ask(adapter)) for adapter in (None, *target.adapters)}) == 3
        details = ask(target.adapters[0], details=True).details
        assert details.generated_tokens == len(details.tokens) == 10


def test_an_unknown_adapter_id(text_hub: InferenceClient, target: Target) -> None:
    def ask(adapter: str | None) -> object:
        return text_hub.text_generation(PROMPT, max_new_tokens=10, adapter_id=adapter)

    answered = found(lambda: ask("no-such-adapter"))
    if answered == "answers":
        answered = "the base answers" if ask("no-such-adapter") == ask(None) else "something answers"
    assert answered == target.expected("an unknown adapter_id")
