"""Preference, UnpairedPreference and Prompts rows: what they may look like, and what is wrong with the others."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from finetune_contract.datasets import RowFormat, SourceFormat
from finetune_contract.failure import FineTuneError
from finetune_trainer.data.formats import Normaliser
from finetune_trainer.data.revision import write_revision
from finetune_trainer.data.rows import Account, Origin, RawRow, Row, RowFaultError

ASKED = [{"role": "user", "content": "2+2?"}]
FOUR, FIVE = ({"role": "assistant", "content": text} for text in ("4", "5"))


def raw(**value: Any) -> RawRow:
    return RawRow(Origin("rows.jsonl", 7), value)


def normalised(**value: Any) -> tuple[RowFormat, dict[str, Any] | None]:
    normaliser = Normaliser(raw(**value), None, {})
    row = normaliser.normalise(raw(**value))
    return normaliser.format, row.value() if row else None


PAIR = {"prompt": ASKED, "chosen": "4", "rejected": "5"}


@pytest.mark.parametrize(
    ("value", "row_format", "row"),
    [
        pytest.param(
            {"prompt": "Q", "chosen": "a", "rejected": "b"}, "Preference",
            {"prompt": "Q", "chosen": "a", "rejected": "b"}, id="text",
        ),
        pytest.param(
            {"chosen": "Q: big? A: yes", "rejected": "Q: big? A: no"}, "Preference",
            {"prompt": "Q: big? A: ", "chosen": "yes", "rejected": "no"}, id="text without a prompt",
        ),
        pytest.param(
            {"chosen": "the answer is an ant", "rejected": "the answer is an antelope"}, "Preference",
            {"prompt": "the answer is an ", "chosen": "ant", "rejected": "antelope"}, id="cut at a word",
        ),
        pytest.param({"prompt": ASKED, "chosen": [FOUR], "rejected": [FIVE]}, "Preference", PAIR, id="turns"),
        pytest.param({"chosen": [*ASKED, FOUR], "rejected": [*ASKED, FIVE]}, "Preference", PAIR, id="conversations"),
        pytest.param(
            {"prompt": ASKED, "chosen": [*ASKED, FOUR], "rejected": [*ASKED, FIVE]}, "Preference", PAIR,
            id="conversations with a prompt",
        ),
        pytest.param(
            {"prompt": ASKED, "completion": [FIVE], "label": False}, "UnpairedPreference",
            {"prompt": ASKED, "completion": "5", "label": False}, id="unpaired",
        ),
        pytest.param({"prompt": "Q"}, "Prompts", {"prompt": "Q", "answer": ""}, id="prompts"),
        pytest.param(
            {"prompt": ASKED, "answer": "4"}, "Prompts", {"prompt": ASKED, "answer": "4"}, id="prompts with answers"
        ),
        pytest.param(
            {"prompt": "Q", "completion": "a", "label": "billing"}, "PromptCompletion",
            {"prompt": "Q", "completion": "a"}, id="a label that is no judgement",
        ),
        pytest.param({"prompt": "Q", "chosen": " ", "rejected": "b"}, "Preference", None, id="empty"),
    ],
)  # fmt: skip
def test_rows_become_a_prompt_and_answers(value: dict[str, Any], row_format: str, row: dict[str, Any] | None) -> None:
    assert normalised(**value) == (RowFormat(row_format), row)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        pytest.param({"prompt": "Q", "chosen": "a", "rejected": "a"}, "are the same", id="no difference"),
        pytest.param({"chosen": "yes", "rejected": "no"}, "begin differently", id="no common beginning"),
        pytest.param({"chosen": "yes", "rejected": [FOUR]}, "chosen is text and rejected a list", id="mixed"),
        pytest.param(
            {"chosen": [*ASKED, FOUR], "rejected": [{"role": "user", "content": "3+2?"}, FIVE]},
            "differ before their last turn", id="two questions",
        ),
        pytest.param({"prompt": 5, "chosen": "a", "rejected": "b"}, "prompt is a number", id="prompt"),
        pytest.param({"prompt": "Q", "chosen": [FOUR], "rejected": "b"}, "chosen is a list", id="turns after text"),
        pytest.param(
            {"prompt": [*ASKED, FOUR], "chosen": "a", "rejected": "b"}, "has to be the user's", id="prompt that ends"
        ),
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_says_what_is_wrong(value: dict[str, Any], fault: str) -> None:
    with pytest.raises(RowFaultError, match=fault):
        normalised(**value)


def test_a_column_is_text_or_turns_throughout() -> None:
    normaliser = Normaliser(raw(prompt="Q"), None, {})
    normaliser.normalise(raw(prompt="Q"))
    with pytest.raises(RowFaultError, match="its prompt is turns; those of the rows before are text"):
        normaliser.normalise(raw(prompt=ASKED))


def test_a_prompt_beside_an_unknown_column_is_no_prompts_row() -> None:
    with pytest.raises(FineTuneError, match="no format has these"):
        Normaliser(raw(prompt="Q", response="a"), None, {})


def test_a_label_may_be_a_number_where_the_format_is_named() -> None:
    normaliser = Normaliser(raw(prompt="Q", completion="a", label=1), SourceFormat.UNPAIRED_PREFERENCE, {})
    row = normaliser.normalise(raw(prompt="Q", completion="a", label=0))
    assert row is not None
    assert row.value()["label"] is False
    with pytest.raises(RowFaultError, match="label is a number"):
        normaliser.normalise(raw(prompt="Q", completion="a", label=3))


def test_the_files_keep_turns_and_marks(tmp_path: Path) -> None:
    def row(**value: Any) -> Row:
        found = Normaliser(raw(**value), None, {}).normalise(raw(**value))
        assert found is not None
        return found

    marked = row(prompt=ASKED, completion="5", label=False)
    write_revision(tmp_path, {"train": [marked]}, Account())
    assert parquet.read_table(tmp_path / "train.parquet").to_pylist() == [marked.value()]
    assert marked.text() == "5\n2+2?"


CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}],
}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "1"}


def test_calls_of_tools_are_kept(tmp_path: Path) -> None:
    value = {"messages": [*ASKED, CALL, RESULT, FOUR], "tools": [{"name": "add"}]}
    plain = {"messages": [*ASKED, FOUR]}
    rows = []
    for each in (plain, value):
        row = Normaliser(raw(**each), None, {}).normalise(raw(**each))
        assert row is not None
        rows.append(row)
    turn = rows[1].value()["messages"][1]
    assert json.loads(turn["tool_calls"])[0]["function"] == {"name": "add", "arguments": {"a": 2, "b": 2}}
    write_revision(tmp_path, {"train": rows}, Account())
    first, second = parquet.read_table(tmp_path / "train.parquet").to_pylist()
    assert first["tools"] is None
    assert json.loads(second["tools"]) == [{"name": "add"}]
    assert [turn["role"] for turn in second["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert second["messages"][2]["tool_call_id"] == "1"


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        pytest.param([*ASKED, CALL, FOUR], r"\[2\].role is 'assistant' where 'tool'", id="a call without a result"),
        pytest.param([*ASKED, RESULT, FOUR], r"\[1\].role is 'tool' where 'assistant'", id="a result without a call"),
        pytest.param(
            [*ASKED, {**CALL, "tool_calls": [{"function": {"name": "add", "arguments": "{"}}]}, RESULT, FOUR],
            "arguments are no JSON", id="arguments",
        ),
        pytest.param([*ASKED, {**CALL, "tool_calls": [{}]}, RESULT, FOUR], "no function with a name", id="no name"),
        pytest.param([*ASKED, {**FOUR, "mood": 0}], "has 'mood'", id="what nobody reads"),
    ],
)  # fmt: skip
def test_calls_that_are_wrong_say_where(messages: list[Any], fault: str) -> None:
    with pytest.raises(RowFaultError, match=fault):
        normalised(messages=messages)
