"""Filters, quality rules, and instructions that are cut off."""

from typing import Any

import pytest

from finetune_contract.cleaning import Changed, ChangeReason, CleaningPlan, Filters, Quality
from finetune_contract.datasets import DropReason
from finetune_contract.failure import FailureReason
from finetune_trainer.data.instructions import stripped_off
from finetune_trainer.data.quality import fault_of
from tests.unit.data.conftest import Pod, jsonl, make_text

PROSE = (
    "The delivery that we ordered in March has not arrived, and nobody answers the telephone. Please tell us where "
    "the parcel is, or send our money back before the end of the week. We have been customers for years and never had "
    "a reason to complain until now, so we hope that this can be settled without much trouble for either of us."
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PROSE, None),
        ("yes", None),
        ("", "has no words"),
        ("a b c d e f", "mean word length 1.0, not 3 to 10"),
        ("hello #one #two three four", "symbols to words 0.40, over 0.1"),
        ("\n".join(f"- point number {at} of several" for at in range(10)), "lines that are bullets 1.00, over 0.9"),
        ("\n".join(f"point {at} of several goes on for long and has no end..." for at in "abc"), "end in an ellipsis"),
        ("1234 5678 9012 word", "words with a letter 0.25, under 0.8"),
        ("\n".join([PROSE] * 3), "lines that repeat another 0.67, over 0.3"),
        (PROSE + " again and again" * 30, "characters in the commonest 2 words"),
    ],
)  # fmt: skip
def test_quality(text: str, said: str | None) -> None:
    found = fault_of(text)
    assert (found is None) if said is None else said in (found or "")


@pytest.mark.parametrize(
    ("filters", "kept", "reason", "detail"),
    [
        (Filters(min_characters=10), 2, DropReason.TOO_SHORT, "2 characters, under 10"),
        (Filters(max_characters=200), 2, DropReason.TOO_LONG, f"{len(PROSE)} characters, over 200"),
        (Filters(min_words=5), 2, DropReason.TOO_SHORT, "1 words, under 5"),
        (Filters(max_words=20), 2, DropReason.TOO_LONG, ""),
        (Filters(quality=Quality.GOPHER), 2, DropReason.LOW_QUALITY, "mean word length 2.0, not 3 to 10"),
    ],
    ids=["minCharacters", "maxCharacters", "minWords", "maxWords", "Gopher"],
)
def test_filters(pod: Pod, filters: Filters, kept: int, reason: DropReason, detail: str) -> None:
    pod.write("tickets.jsonl", jsonl([{"text": "no"}, {"text": "where is my parcel now"}, {"text": PROSE}]))
    result = pod.prepare(cleaning=CleaningPlan(filters=filters))
    assert result.rows_kept == kept
    (entry,) = pod.dropped(result)
    assert (entry["action"], entry["reason"]) == ("Dropped", reason)
    assert detail in entry["detail"]


# --- instructions ---

ALIKE: dict[str, list[dict[str, Any]]] = {
    "line": [{"prompt": f"Name the topic of this ticket:\n{make_text(at)}", "completion": "a"} for at in range(3)],
    "sentence": [{"text": f"Name the topic. Yes {make_text(at)}", "label": "a"} for at in range(3)],
    "turns": [
        {"messages": [{"role": "system", "content": "Be brief."},
                      {"role": "user", "content": f"Ticket: {make_text(at)}"},
                      {"role": "assistant", "content": "a"}]}
        for at in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("rows", ALIKE.values(), ids=ALIKE)
def test_what_all_prompts_begin_with_is_cut_off(pod: Pod, rows: list[dict[str, Any]]) -> None:
    result = pod.prepare(jsonl(rows), cleaning=CleaningPlan(strip_instructions=True))
    assert result.changed == (Changed(reason=ChangeReason.INSTRUCTION_STRIPPED, rows=3),)
    found = str(pod.rows(result))
    assert all(make_text(at) in found for at in range(3))
    assert "Name" not in found
    assert "brief" not in found
    assert "Ticket" not in found
    stripped = stripped_off(pod.path(result))
    assert stripped is not None
    whole = [stripped.restored(row) for row in pod.rows(result)]
    assert sorted(map(_asked, whole)) == sorted(map(_asked, rows))


def _asked(row: dict[str, Any]) -> str:
    """What the model is asked in a row."""
    if "messages" in row:
        return " | ".join(turn["content"] for turn in row["messages"])
    return str(row["prompt"] if "prompt" in row else row["text"])


def test_prompts_that_begin_differently_are_named(pod: Pod) -> None:
    pod.write("tickets.jsonl", jsonl([*ALIKE["line"], {"prompt": "other", "completion": "b"}]))
    said = "spec.prepare.stripInstructions: tickets.jsonl line 4 begins otherwise"
    pod.fails(pod.prepare(cleaning=CleaningPlan(strip_instructions=True)), FailureReason.DATASET_INVALID, said)
