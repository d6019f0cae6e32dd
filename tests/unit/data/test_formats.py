"""Formats: detected, mapped, and held to."""

from typing import Any

import pytest

from finetune_contract.datasets import RowFormat, SourceFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.formats import Normaliser
from finetune_trainer.data.rows import Origin, RawRow, RowFaultError


def raw(value: dict[str, Any], line: int = 1) -> RawRow:
    return RawRow(Origin("tickets.jsonl", line), value)


def normalise(
    value: dict[str, Any], source_format: SourceFormat | None = None, columns: dict[str, str] | None = None
) -> tuple[RowFormat, dict[str, Any] | None]:
    normaliser = Normaliser(raw(value), source_format, columns or {})
    row = normaliser.normalise(raw(value))
    return normaliser.format, row.value() if row else None


def turns(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


CHAT = turns(("system", ""), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Goodbye"))


@pytest.mark.parametrize(
    ("value", "row_format", "normalised"),
    [
        ({**CHAT, "id": 7}, RowFormat.MESSAGES, CHAT),
        ({"prompt": "p", "completion": " c "}, RowFormat.PROMPT_COMPLETION, {"prompt": "p", "completion": " c "}),
        ({"text": "t", "label": "l"}, RowFormat.CLASSIFICATION, {"text": "t", "label": "l"}),
        ({"text": "t", "label": 3}, RowFormat.CLASSIFICATION, {"text": "t", "label": "3"}),
        ({"text": "t", "url": "u"}, RowFormat.TEXT, {"text": "t"}),
    ],
    ids=["messages", "prompt and completion", "classification", "numbered label", "text"],
)
def test_a_format_is_detected(value: dict[str, Any], row_format: RowFormat, normalised: dict[str, Any]) -> None:
    assert normalise(value) == (row_format, normalised)


def test_columns_are_mapped_and_detected_by_their_new_names() -> None:
    value = {"question": "p", "answer": "c"}
    columns = {"prompt": "question", "completion": "answer"}
    assert normalise(value, columns=columns) == (RowFormat.PROMPT_COMPLETION, {"prompt": "p", "completion": "c"})


def test_a_named_format_takes_only_its_columns() -> None:
    assert normalise({"text": "t", "label": "l"}, SourceFormat.TEXT) == (RowFormat.TEXT, {"text": "t"})


@pytest.mark.parametrize(
    ("value", "source_format", "columns", "said"),
    [
        (
            {"question": "p", "answer": "c"},
            None,
            {},
            "tickets.jsonl line 1: has the columns question, answer; no format has these. Name them in spec.columns",
        ),
        ({}, None, {}, "has the columns none"),
        (
            {"question": "p", "answer": "c"},
            SourceFormat.PROMPT_COMPLETION,
            {"prompt": "question"},
            "tickets.jsonl line 1: has no column 'completion', which PromptCompletion needs; it has question, answer",
        ),
        (
            {"text": "t"},
            SourceFormat.TEXT,
            {"text": "body"},
            "tickets.jsonl line 1: has no column 'body', which Text needs; it has text",
        ),
        ({"text": "t"}, None, {"label": "class"}, "spec.columns.label: is not a column of Text; it has text"),
    ],
    ids=["nothing known", "no columns", "half mapped", "mapped to nothing", "unknown column"],
)
def test_wrong_columns_are_named(
    value: dict[str, Any], source_format: SourceFormat | None, columns: dict[str, str], said: str
) -> None:
    with pytest.raises(FineTuneError) as raised:
        Normaliser(raw(value), source_format, columns)
    assert said in str(raised.value)
    assert raised.value.reason is FailureReason.DATASET_INVALID


@pytest.mark.parametrize(
    "value",
    [
        {"text": " \n"},
        {"text": None},
        {"prompt": "", "completion": "c"},
        {"prompt": "p", "completion": ""},
        {"text": "t", "label": " "},
        turns(("user", "Hi"), ("assistant", "")),
    ],
    ids=str,
)
def test_a_row_with_nothing_to_learn_from_is_empty(value: dict[str, Any]) -> None:
    assert normalise(value)[1] is None


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"messages": []}, "messages is empty, not a list of turns"),
        ({"messages": "Hi"}, "messages is text, not a list of turns"),
        ({"messages": ["Hi"]}, "messages[0] is text, not an object with role and content"),
        (turns(("human", "Hi")), "messages[0].role is 'human'; it may be system, user, assistant"),
        (turns(("assistant", "Hi")), "messages[0].role is 'assistant' where 'user' has to be"),
        (turns(("user", "a"), ("user", "b")), "messages[1].role is 'user' where 'assistant' has to be"),
        (turns(("user", "a"), ("system", "b")), "messages[1].role is 'system' where 'assistant' has to be"),
        (turns(("system", "a")), "messages end with 'system'"),
        (turns(("user", "a")), "messages end with 'user'; the last one has to be the assistant's answer"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is null; only text is supported"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content is an object; only text is supported"),
        (
            {"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]},
            "messages[0] has 'tool_calls'; a turn of 'user' has role, content, name only",
        ),
        ({"prompt": ["a"], "completion": "b"}, "column 'prompt' holds a list, not text"),
        ({"text": "a", "label": True}, "column 'label' holds a boolean, not text"),
        ({"text": "a", "label": 0.5}, "column 'label' holds a number, not text"),
        ({"text": "\ud800"}, "holds half of a surrogate pair"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_is_not_of_the_format_is_named(value: dict[str, Any], fault: str) -> None:
    with pytest.raises(RowFaultError) as raised:
        normalise(value)
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("later", "fault"),
    [
        ({"prompt": "p", "completion": "c"}, "has no column 'text', unlike the rows before; it has prompt, completion"),
        ({"text": "t", "label": "l"}, "is a row of Classification; the rows before are of Text"),
    ],
    ids=["other", "richer"],
)
def test_mixed_formats_are_named(later: dict[str, Any], fault: str) -> None:
    normaliser = Normaliser(raw({"text": "t"}), None, {})
    with pytest.raises(RowFaultError) as raised:
        normaliser.normalise(raw(later, 2))
    assert fault in str(raised.value)


def test_unused_columns_are_known() -> None:
    row = raw({"text": "t", "url": "u", "id": 1})
    assert Normaliser(row, None, {}).unused_columns(row) == ["id", "url"]
