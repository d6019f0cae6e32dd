"""The instruction that all prompts begin with, and rows without it: `spec.prepare.stripInstructions`.

A model that is tuned on inputs alone is prompted without the instruction, which saves its tokens in every request.
"""

import re
from pathlib import Path
from typing import Any

from finetune_contract.base import Document
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.rows import Row

_END = re.compile(r"[\s\S]*(?:\n|[:.?!]\s)")
"""An instruction ends with a line or a sentence: further letters that inputs share are theirs."""


INSTRUCTION_FILE = "instruction.json"
"""Beside the rows of a revision: what was cut off them, for those who want to ask with it."""


class Stripped(Document):
    """What was cut off all prompts of a revision."""

    system: str | None = None
    """The system turn."""
    start: str = ""
    """How the first user's text began."""

    def restored(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row's columns with the instruction: the reverse of `Instruction.stripped`, but for white space."""
        for column in ("messages", "prompt"):
            if isinstance(turns := row.get(column), list):
                first = next(at for at, turn in enumerate(turns) if turn["role"] == "user")
                long = {**turns[first], "content": self.start + turns[first]["content"]}
                whole = [*turns[:first], long, *turns[first + 1 :]]
                head = [{"role": "system", "content": self.system}] if self.system is not None else []
                return {**row, column: [*head, *whole]}
        column = "prompt" if "prompt" in row else "text"
        return {**row, column: self.start + row[column]}


def stripped_off(directory: Path) -> Stripped | None:
    """What was cut off a revision's rows; None where nothing was."""
    path = directory / INSTRUCTION_FILE
    return Stripped.model_validate_json(path.read_bytes()) if path.is_file() else None


class Instruction:
    """What all prompts have in common: a system turn, and the beginning of the first user's text."""

    def __init__(self) -> None:
        self._system: str | None = None
        self._start: str | None = None
        self._rows = 0

    def see(self, row: Row) -> None:
        """Take a row into account.

        Raises:
            FineTuneError: DatasetInvalid, naming the first row that begins otherwise than those before.
        """
        system, prompt = _parts(row)
        if self._start is None:
            self._system, self._start = system, prompt
        if system != self._system:
            self._system = None
        length = 0
        for one, other in zip(self._start, prompt, strict=False):
            if one != other:
                break
            length += 1
        self._start = self._start[:length]
        self._rows += 1
        if self._system is None and not self._start.strip():
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"spec.prepare.stripInstructions: {row.origin} begins otherwise than the rows before, so there is no "
                "instruction that all of them repeat; set it to false",
            )

    def settle(self) -> None:
        """Every row was seen: end the instruction where a line or sentence does."""
        found = _END.match(self._start or "")
        self._start = found[0] if found and self._rows > 1 else ""
        if self._system is None and not self._start:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                "spec.prepare.stripInstructions: the prompts do not begin with the same line or sentence; "
                "set it to false",
            )

    def record(self) -> Stripped:
        """What is cut off, to be kept with the rows."""
        return Stripped(system=self._system, start=self._start or "")

    def text(self) -> str:
        """The instruction."""
        return "\n".join(part for part in (self._system, (self._start or "").strip()) if part)

    def stripped(self, value: dict[str, Any]) -> dict[str, Any]:
        """A row's columns without the instruction."""
        start = len(self._start or "")
        for column in ("messages", "prompt"):
            if isinstance(turns := value.get(column), list):
                if self._system is not None and turns[0]["role"] == "system":
                    turns = turns[1:]
                first = next(at for at, turn in enumerate(turns) if turn["role"] == "user")
                short = {**turns[first], "content": turns[first]["content"][start:].lstrip()}
                return {**value, column: [*turns[:first], short, *turns[first + 1 :]]}
        column = "prompt" if "prompt" in value else "text"
        return {**value, column: value[column][start:].lstrip()}


def _parts(row: Row) -> tuple[str | None, str]:
    """A row's system turn, and what its prompt begins with."""
    value = row.value()
    for column in ("messages", "prompt"):
        if isinstance(turns := value.get(column), list):
            system = turns[0]["content"] if turns[0]["role"] == "system" else None
            return system, next((turn["content"] for turn in turns if turn["role"] == "user"), "")
    text: str = value["prompt"] if "prompt" in value else value["text"]
    return None, text
