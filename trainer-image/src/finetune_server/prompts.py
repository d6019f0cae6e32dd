"""Prompts to tokens, and how long an answer may be: one model's own, whoever asks it."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from finetune_server.errors import bad_request
from finetune_server.model import LanguageModel


def encode(model: LanguageModel, text: str) -> list[int]:
    """A prompt as the tokenizer writes it by default, with its special tokens.

    Raises:
        ApiError: 400 for text that is none (half of a surrogate pair, which JSON can spell).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise bad_request(f"the prompt is not Unicode text: {error.reason} at character {error.start}") from error
    tokenizer = model.tokenizer
    ids: list[int] = tokenizer.encode(text)
    bos = tokenizer.bos_token_id
    # A prompt that was rendered by a chat template has its BOS already; most models answer worse with two.
    if bos is not None and ids[:2] == [bos, bos] and text.startswith(tokenizer.bos_token):
        return ids[1:]
    return ids


def render(model: LanguageModel, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[int]:
    """A conversation as the model's chat template writes it: no special tokens are added to the template's own.

    Raises:
        ApiError: 400 when there is no template, or it refuses the messages.
    """
    if not model.tokenizer.chat_template:
        raise bad_request("the base model has no chat template; use /v1/completions", "messages")
    try:
        ids = model.tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise bad_request(f"the chat template refuses these messages: {error}", "messages") from error
    return list(ids)


def known_tokens(model: LanguageModel, prompt: Sequence[int]) -> list[int]:
    """Token ids from a client; one outside the vocabulary would crash the whole batch.

    Raises:
        ApiError: 400, naming the first that is unknown.
    """
    size = model.vocabulary
    if unknown := [token for token in prompt if not 0 <= token < size]:
        raise bad_request(f"prompt: token {unknown[0]} is not in the vocabulary of {size}", "prompt")
    return list(prompt)


def answer_length(limit: int, prompt: Sequence[int], wanted: int | None, param: str) -> int:
    """How many tokens may be generated; all that fit when the client did not say.

    Args:
        limit: Tokens of prompt and answer together.
        prompt: Its tokens.
        wanted: What the client asked for.
        param: The field that asks for it.

    Raises:
        ApiError: 400 when prompt and answer exceed the limit, or the prompt is empty.
    """
    if not prompt:
        raise bad_request("the prompt has no tokens", param)
    if len(prompt) + (wanted or 1) > limit:
        raise bad_request(
            f"This model's maximum context length is {limit} tokens, but {len(prompt)} in the prompt and "
            f"{wanted or 1} for the answer were requested; shorten the prompt or lower {param}",
            param,
            code="context_length_exceeded",
        )
    return wanted or limit - len(prompt)
