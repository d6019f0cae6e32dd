"""Other tools' conversations become messages; turns that are not to be learnt are marked."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.datasets import RowFormat, SourceFormat
from finetune_contract.failure import FineTuneError
from finetune_trainer.data.formats import Normaliser
from finetune_trainer.data.revision import write_revision
from finetune_trainer.data.rows import Account, Origin, RawRow, RowFaultError


def raw(value: dict[str, Any]) -> RawRow:
    return RawRow(Origin("rows.jsonl", 7), value)


def normalised(
    value: dict[str, Any], source_format: SourceFormat | None = None, columns: dict[str, str] | None = None
) -> tuple[SourceFormat, dict[str, Any] | None]:
    normaliser = Normaliser(raw(value), source_format, columns or {})
    row = normaliser.normalise(raw(value))
    return normaliser.source_format, row.value() if row else None


def messages(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def share_gpt(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"from": speaker, "value": said} for speaker, said in turns]


CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
CALLED = json.dumps([{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}], sort_keys=True)

DIALECTS: dict[str, tuple[dict[str, Any], SourceFormat, dict[str, Any]]] = {
    "Alpaca": (
        {"instruction": "Add.", "input": "2 and 2", "output": "4", "text": "Below is an instruction ..."},
        SourceFormat.ALPACA,
        {"messages": messages(("user", "Add.\n\n2 and 2"), ("assistant", "4"))},
    ),
    "Alpaca with system and history": (
        {"instruction": "And 3?", "input": "", "output": "7", "system": "Be brief.", "history": [["2+2?", "4"]]},
        SourceFormat.ALPACA,
        {
            "messages": messages(
                ("system", "Be brief."), ("user", "2+2?"), ("assistant", "4"), ("user", "And 3?"), ("assistant", "7")
            )
        },
    ),
    "ShareGPT": (
        {"id": "a", "conversations": share_gpt(("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "Bye!"))},
        SourceFormat.SHARE_GPT,
        {"messages": messages(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Bye!"))},
    ),
    "ShareGPT with system and tools": (
        {
            "system": "You add.",
            "tools": '[{"name": "add"}]',
            "conversations": share_gpt(
                ("human", "2+2?"), ("function_call", '{"name": "add", "arguments": {"a": 2}}'), ("observation", "4"),
                ("gpt", "4"),
            ),
        },
        SourceFormat.SHARE_GPT,
        {
            "tools": '[{"name": "add"}]',
            "messages": [
                *messages(("system", "You add."), ("user", "2+2?")),
                {"role": "assistant", "content": "", "tool_calls": CALLED},
                *messages(("tool", "4"), ("assistant", "4")),
            ],
        },
    ),
    "ShareGPT as JSON text in a table": (
        {"conversations": json.dumps(share_gpt(("human", "Hi"), ("gpt", "Hello")))},
        SourceFormat.SHARE_GPT,
        {"messages": messages(("user", "Hi"), ("assistant", "Hello"))},
    ),
    "conversations of role and content": (
        {"conversations": messages(("user", "Hi"), ("assistant", "Hello"))},
        SourceFormat.SHARE_GPT,
        {"messages": messages(("user", "Hi"), ("assistant", "Hello"))},
    ),
    "OpenAI with weights": (
        {
            "messages": [
                *messages(("developer", "Be brief."), ("user", "a")),
                {"role": "assistant", "content": "wrong", "weight": 0},
                *messages(("user", "b")),
                {"role": "assistant", "content": "right", "weight": 1, "refusal": None},
                *messages(("user", "c")),
                {"role": "assistant", "content": "unlearnt", "weight": 0},
            ],
            "parallel_tool_calls": False,
        },
        SourceFormat.MESSAGES,
        {
            "messages": [
                *messages(("system", "Be brief."), ("user", "a")),
                {"role": "assistant", "content": "wrong", "weight": 0},
                *messages(("user", "b"), ("assistant", "right")),
            ]
        },
    ),
    "OpenAI with parts of text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                      {"role": "assistant", "content": "c"}]},
        SourceFormat.MESSAGES,
        {"messages": messages(("user", "ab"), ("assistant", "c"))},
    ),
    "OpenAI's old calls": (
        {
            "messages": [
                *messages(("user", "2+2?")),
                {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 2}'}},
                {"role": "function", "name": "add", "content": "4"},
                *messages(("assistant", "4")),
            ]
        },
        SourceFormat.MESSAGES,
        {
            "messages": [
                *messages(("user", "2+2?")),
                {"role": "assistant", "content": "", "tool_calls": CALLED},
                {"role": "tool", "name": "add", "content": "4"},
                *messages(("assistant", "4")),
            ]
        },
    ),
    "an unpaired preference from a table": (
        {"prompt": "a", "completion": "b", "label": "False"},
        SourceFormat.UNPAIRED_PREFERENCE,
        {"prompt": "a", "completion": "b", "label": False},
    ),
    "a preference of ShareGPT's turns": (
        {"chosen": share_gpt(("human", "a"), ("gpt", "b")), "rejected": share_gpt(("human", "a"), ("gpt", "c"))},
        SourceFormat.PREFERENCE,
        {"prompt": messages(("user", "a")), "chosen": "b", "rejected": "c"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIALECTS)
def test_what_another_tool_writes_is_read(case: str) -> None:
    value, source_format, expected = DIALECTS[case]
    assert normalised(value) == (source_format, expected)


def test_columns_may_be_nested() -> None:
    value = {
        "input": {"messages": messages(("user", "a"))},
        "preferred_output": messages(("assistant", "b")),
        "non_preferred_output": messages(("assistant", "c")),
    }
    columns = {"prompt": "input.messages", "chosen": "preferred_output", "rejected": "non_preferred_output"}
    expected = {"prompt": messages(("user", "a")), "chosen": "b", "rejected": "c"}
    assert normalised(value, columns=columns) == (SourceFormat.PREFERENCE, expected)
    squad = {"question": "Where?", "answers": {"text": ["here", "there"]}}
    columns = {"prompt": "question", "completion": "answers.text.0"}
    assert normalised(squad, columns=columns)[1] == {"prompt": "Where?", "completion": "here"}
    dotted = {"a.b": "text"}
    assert normalised(dotted, columns={"text": "a.b"})[1] == {"text": "text"}
    with pytest.raises(FineTuneError, match=r"has no column 'answers.text.7'"):
        normalised(squad, SourceFormat.PROMPT_COMPLETION, {"prompt": "question", "completion": "answers.text.7"})


IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]},
        "messages[0].content[1] is image_url; only text is learnt from, no pictures or sound",
    ),
    "a column of images": (
        {"images": ["a.png"], **DIALECTS["ShareGPT"][0]},
        "has the column 'images'; only text is learnt from",
    ),
    "an unknown speaker": (
        {"conversations": share_gpt(("human", "a"), ("narrator", "b"))},
        "conversations[1].from is 'narrator'; it may be system, human",
    ),
    "an assistant who begins": (
        {"conversations": share_gpt(("gpt", "a"))},
        "conversations[0].role is 'assistant' where 'user' has to be",
    ),
    "a role twice": (
        {"conversations": share_gpt(("human", "a"), ("human", "b"))},
        "conversations[1].role is 'user' where 'assistant' has to be",
    ),
    "a call that is no JSON": (
        {"conversations": share_gpt(("human", "a"), ("function_call", "add(2)"))},
        "conversations[1].value: a function_call is JSON with name and arguments",
    ),
    "a weight that is none": (
        {"messages": [*messages(("user", "a")), {"role": "assistant", "content": "b", "weight": 0.5}]},
        "messages[1].weight is 0.5; it may be 0 (not learnt) or 1",
    ),
    "a weighted user": (
        {"messages": [{"role": "user", "content": "a", "weight": 1}]},
        "messages[0] has 'weight'; a turn of 'user' has role, content, name only",
    ),
    "an output that is no text": (
        {"instruction": "a", "input": "", "output": ["b"]}, "column 'output' holds a list, not text",
    ),
    "a list that is broken off": ({"messages": '[{"role": '}, "messages is text that begins like a list"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_no_conversation_is_named(case: str) -> None:
    value, fault = FAULTS[case]
    with pytest.raises(RowFaultError) as raised:
        normalised(value)
    assert fault in str(raised.value)


def test_a_conversation_of_which_nothing_is_learnt_is_empty() -> None:
    unlearnt = {"messages": [*messages(("user", "a")), {"role": "assistant", "content": "b", "weight": 0}]}
    assert normalised(unlearnt)[1] is None


def test_formats_that_become_the_same_are_still_not_mixed() -> None:
    normaliser = Normaliser(raw(DIALECTS["Alpaca"][0]), None, {})
    assert normaliser.format is RowFormat.MESSAGES
    with pytest.raises(RowFaultError, match="has no column 'instruction'"):
        normaliser.normalise(raw(DIALECTS["ShareGPT"][0]))


def test_a_weight_is_kept_in_the_revision(tmp_path: Path) -> None:
    value = DIALECTS["OpenAI with weights"][0]
    normaliser = Normaliser(raw(value), None, {})
    row = normaliser.normalise(raw(value))
    assert row is not None
    write_revision(tmp_path, {"train": [row]}, Account())
    (stored,) = parquet.read_table(tmp_path / "train.parquet").to_pylist()
    assert [turn["weight"] for turn in stored["messages"]] == [None, None, 0, None, None]


SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())
EXCHANGE = st.tuples(SAID, SAID, st.sampled_from([None, 0, 1]))


@given(system=st.none() | SAID, exchanges=st.lists(EXCHANGE, min_size=1, max_size=4))
def test_what_was_normalised_normalises_to_itself(
    system: str | None, exchanges: list[tuple[str, str, int | None]]
) -> None:
    turns = messages(("system", system)) if system else []
    for asked, answered, weight in exchanges:
        turns += messages(("user", asked), ("assistant", answered))
        turns[-1] |= {} if weight is None else {"weight": weight}
    _, once = normalised({"messages": turns})
    learnt = [answered for _, answered, weight in exchanges if weight != 0]
    if once is None:
        assert not learnt
    else:
        assert [
            turn["content"] for turn in once["messages"] if turn.get("weight") != 0 and turn["role"] == "assistant"
        ] == learnt
        assert normalised(once)[1] == once


@given(system=st.none() | SAID, exchanges=st.lists(EXCHANGE, min_size=1, max_size=4))
def test_every_way_to_write_a_conversation_is_the_same_row(
    system: str | None, exchanges: list[tuple[str, str, int | None]]
) -> None:
    pairs = [(asked, answered) for asked, answered, _ in exchanges]
    plain = [turn for asked, answered in pairs for turn in (("user", asked), ("assistant", answered))]
    spoken = [turn for asked, answered in pairs for turn in (("human", asked), ("gpt", answered))]
    first = {"system": system} if system else {}
    rows = [
        normalised({"messages": messages(*([("system", system)] if system else []), *plain)})[1],
        normalised({"conversations": share_gpt(*spoken), **first})[1],
        normalised(
            {
                "instruction": pairs[-1][0],
                "output": pairs[-1][1],
                "history": [list(pair) for pair in pairs[:-1]],
                **first,
            }
        )[1],
    ]
    assert rows[0] == rows[1] == rows[2]
