"""Which engine answers what, where they differ: data for the suite, and a table for people who change engines.

Questions that all engines answer alike are tests without an entry here.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import openai


class Answers(NamedTuple):
    """What each engine says to one question.

    `transformers` is what CI runs. `vllm` and `tgi` are what is known of vLLM 0.33 and TGI 3.3.7 and hold until
    the suite is run against them: a difference is then an error of this table, and shows as a failure.
    """

    transformers: str
    vllm: str
    tgi: str


OPENAI, TGI, OTHER = "OpenAI error", "TGI error", "other body"

QUESTIONS = {
    "the list of models": Answers("base and adapters", "base and adapters", "base only"),
    "an unknown model": Answers(f"404 {OPENAI}", f"404 {OPENAI}", "the base answers"),
    "an unknown adapter_id": Answers("404", "404", "the base answers"),
    "a wrong API key": Answers(f"401 {OPENAI}", f"401 {OTHER}", f"401 {OTHER}"),
    "a negative temperature": Answers(f"400 {OPENAI}", f"400 {OPENAI}", f"422 {TGI}"),
    "no tokens wanted": Answers(f"400 {OPENAI}", f"400 {OPENAI}", f"422 {TGI}"),
    "an unknown field": Answers(f"400 {OPENAI}", "ignored", "ignored"),
    "two answers": Answers(f"400 {OPENAI}", "2 answers", "1 answers"),
    "two prompts": Answers(f"400 {OPENAI}", "2 answers", "2 answers"),
    "more tokens than the context": Answers(f"400 {OPENAI}", f"400 {OPENAI}", f"422 {TGI}"),
    "a prompt of 10 MB": Answers(f"413 {OPENAI}", f"400 {OPENAI}", f"413 {OTHER}"),
    "bytes that are not UTF-8": Answers(f"400 {OPENAI}", f"400 {OPENAI}", f"400 {OTHER}"),
    "logprobs of a completion": Answers("with alternatives", "with alternatives", "none"),
    "text_generation": Answers("answers", "404", "answers"),
}


def outcome(ask: Callable[[], object]) -> str:
    """What the `openai` client made of an answer: `200`, or the status and whose error body it is."""
    try:
        ask()
    except openai.APIStatusError as error:
        return f"{error.status_code} {body_kind(error.response.content)}"
    return "200"


def body_kind(content: bytes) -> str:
    """Whose shape an error body has."""
    try:
        document = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return OTHER
    if not isinstance(document, dict):
        return OTHER
    error = document.get("error")
    if isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys():
        return OPENAI
    return TGI if isinstance(error, str) and "error_type" in document else OTHER
