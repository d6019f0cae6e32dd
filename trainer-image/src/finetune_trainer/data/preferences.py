"""Rows of preferences and prompts: with or without a prompt of their own, as strings or as turns.

A preference's answers may be strings, the last turn, or whole conversations that differ in their last turn only;
without a prompt, what both begin with is the prompt. What comes out is always a prompt and answers that are strings.
"""

from collections.abc import Callable
from typing import Any

from finetune_trainer.data.rows import RowFaultError
from finetune_trainer.data.strictjson import kind_of
from finetune_trainer.data.turns import conversation

Prompt = str | list[dict[str, Any]]


def preference(value: dict[str, Any]) -> dict[str, Any] | None:
    """`prompt`, `chosen` and `rejected`; None when one of them is empty.

    Raises:
        RowFaultError: Naming the column and what is wrong with it.
    """
    chosen, rejected = value.get("chosen"), value.get("rejected")
    if value.get("prompt") is None:
        prompt, chosen, rejected = _without_common_beginning(chosen, rejected)
    else:
        prompt = _prompt(value["prompt"])
        chosen, rejected = _answer("chosen", chosen, prompt), _answer("rejected", rejected, prompt)
    if _is_empty(prompt) or not chosen.strip() or not rejected.strip():
        return None
    if chosen == rejected:
        raise RowFaultError("chosen and rejected are the same")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def unpaired(value: dict[str, Any]) -> dict[str, Any] | None:
    """`prompt`, `completion` and `label`; None when one of the first two is empty."""
    prompt = _prompt(value.get("prompt"))
    completion = _answer("completion", value.get("completion"), prompt)
    label = value.get("label")
    if isinstance(label, str):
        label = {"true": True, "false": False, "1": True, "0": False}.get(label.strip().lower(), label)
    # 0 and 1 are what CSV files and exported tables write.
    if not isinstance(label, bool) and label not in (0, 1):
        raise RowFaultError(f"label is {kind_of(label)}; it has to be true (a good completion) or false")
    if _is_empty(prompt) or not completion.strip():
        return None
    return {"prompt": prompt, "completion": completion, "label": bool(label)}


def prompts(value: dict[str, Any]) -> dict[str, Any] | None:
    """`prompt` and perhaps `answer`; None when the prompt is empty."""
    prompt = _prompt(value.get("prompt"))
    answer = value.get("answer")
    if answer is not None and not isinstance(answer, str):
        raise RowFaultError(f"answer is {kind_of(answer)}, not text")
    return None if _is_empty(prompt) else {"prompt": prompt, "answer": answer or ""}


SHAPES: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "Preference": preference,
    "UnpairedPreference": unpaired,
    "Prompts": prompts,
}
"""By format."""


def _prompt(value: object) -> Prompt:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return conversation("prompt", value, last="user")
    raise RowFaultError(f"prompt is {kind_of(value)}; it has to be text or a list of turns")


def _is_empty(prompt: Prompt) -> bool:
    return not prompt.strip() if isinstance(prompt, str) else any(not turn["content"].strip() for turn in prompt[-1:])


def _answer(column: str, value: object, prompt: Prompt) -> str:
    """An answer that is a string, the assistant's turn, or the whole conversation that ends with it."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or isinstance(prompt, str):
        raise RowFaultError(f"{column} is {kind_of(value)}; it has to be text, or turns where the prompt is turns")
    if len(value) == 1:
        value = [*prompt, *value]
    turns = conversation(column, value, last="assistant")
    if turns[:-1] != prompt:
        raise RowFaultError(f"{column} has turns that are not the prompt's before its last one")
    return str(turns[-1]["content"])


def _without_common_beginning(chosen: object, rejected: object) -> tuple[Prompt, str, str]:
    """The prompt that two whole texts or conversations share, and what follows it in each."""
    if isinstance(chosen, list) and isinstance(rejected, list):
        good = conversation("chosen", chosen, last="assistant")
        bad = conversation("rejected", rejected, last="assistant")
        if good[:-1] != bad[:-1]:
            raise RowFaultError("chosen and rejected differ before their last turn; only that one may differ")
        return good[:-1], good[-1]["content"], bad[-1]["content"]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise RowFaultError(
            f"chosen is {kind_of(chosen)} and rejected {kind_of(rejected)}; both have to be text, or both turns"
        )
    same = next((at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), None)
    end = min(len(chosen), len(rejected)) if same is None else same
    # Cut at a word's end: a prompt is not half of a word that two answers happen to share.
    while end and not chosen[end - 1].isspace():
        end -= 1
    if not chosen[:end].strip():
        raise RowFaultError("chosen and rejected begin differently, and there is no prompt; name it in spec.columns")
    return chosen[:end], chosen[end:], rejected[end:]
