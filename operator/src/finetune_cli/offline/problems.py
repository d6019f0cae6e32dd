"""A finding about a document, and the names that are near to a misspelt one."""

import difflib
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

Path = tuple[str | int, ...]
"""Where in a document: keys and indices."""

_SHORT = reprlib.Repr()
"""How a message repeats a value: cut where it is long, also where aliases make it endless."""
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel = 2


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """The API server or the operator will refuse it."""
    NOTE = "note"
    """It was not checked, or may be wrong."""


@dataclass(frozen=True)
class Problem:
    """One finding, before it is known in which file it is."""

    path: Path
    message: str
    level: Level = Level.ERROR


def dotted(path: Path) -> str:
    """As the API server writes it: `spec.adapters[0].name`."""
    words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return words.removeprefix(".")


def shown(value: object) -> str:
    """A value in a message."""
    return _SHORT.repr(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` did you mean 'format'?`, or what there is when nothing is near and that is not much; maybe nothing."""
    names = list(known)
    # Case is the most usual mistake: max_length, MaxLength, maxlength.
    plain = {name.lower().replace("_", ""): name for name in names}
    folded = word.lower().replace("_", "").replace("-", "")
    near = difflib.get_close_matches(folded, plain, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {plain[near[0]]!r}?"
    return f"; there is {', '.join(names)}" if 0 < len(names) <= 8 else ""
