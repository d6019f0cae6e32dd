"""A judge's words as a verdict."""

import re
from enum import StrEnum

_VERDICT = re.compile(r"\[\[\s*(A|B|C|tie)\s*\]\]", re.IGNORECASE)
_BARE = re.compile(r"\W*(A|B|C|tie)\W*", re.IGNORECASE)


class Verdict(StrEnum):
    """Which of two answers is better."""

    A = "A"
    B = "B"
    TIE = "C"


def verdict_in(text: str) -> Verdict | None:
    """The verdict of a judge's words: the last `[[A]]`, `[[B]]` or `[[C]]`, or such a letter alone; None for none."""
    marked = _VERDICT.findall(text)
    bare = _BARE.fullmatch(text)
    word = marked[-1] if marked else bare.group(1) if bare else ""
    if not word:
        return None
    return Verdict.TIE if word.upper() in ("C", "TIE") else Verdict(word.upper())
