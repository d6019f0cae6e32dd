"""Rules that tell running text from debris.

Those of Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
(https://arxiv.org/abs/2112.11446), appendix A.1.1, tables A1 and A2, without the two that are of web pages in English:
50 to 100,000 words (spec.prepare.filters.minWords, maxWords say that) and two of eight English stop words. Shares of
repeated text are of characters, as there; the rules for repetitions need enough text and skip rows under 50 words.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

_WORD_LENGTHS = (3.0, 10.0)
_SYMBOLS_TO_WORDS = 0.1
_BULLET_LINES = 0.9
_ELLIPSIS_LINES = 0.3
_ALPHABETIC_WORDS = 0.8
_DUPLICATE_LINES = (0.3, 0.2)
"""Share of lines that repeat another, and of their characters."""
_TOP_RUNS = {2: 0.20, 3: 0.18, 4: 0.16}
"""Words of a run -> share of characters in its commonest one."""
_DUPLICATE_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Words of a run -> share of characters in runs that occur more than once."""
_ENOUGH_WORDS = 50
_BULLETS = ("\u2022", "\u2023", "\u25e6", "-", "*")
_ELLIPSES = ("...", "\u2026")


def fault_of(text: str) -> str | None:
    """The first rule that a text breaks, with its value and the limit; None for running text."""
    return next(_faults(text), None)


def _faults(text: str) -> Iterator[str]:
    words = text.split()
    if not words:
        yield "has no words"
        return
    mean = sum(map(len, words)) / len(words)
    low, high = _WORD_LENGTHS
    # Scripts without spaces have no words of that kind.
    if text.isascii() and not low <= mean <= high:
        yield f"mean word length {mean:.1f}, not {low:g} to {high:g}"
    symbols = (text.count("#") + sum(text.count(mark) for mark in _ELLIPSES)) / len(words)
    if symbols > _SYMBOLS_TO_WORDS:
        yield f"symbols to words {symbols:.2f}, over {_SYMBOLS_TO_WORDS}"
    lines = [line for line in text.splitlines() if line.strip()]
    yield from _over("lines that are bullets", [line.lstrip().startswith(_BULLETS) for line in lines], _BULLET_LINES)
    yield from _over("lines that end in an ellipsis", [line.endswith(_ELLIPSES) for line in lines], _ELLIPSIS_LINES)
    alphabetic = sum(any(map(str.isalpha, word)) for word in words) / len(words)
    if alphabetic < _ALPHABETIC_WORDS:
        yield f"words with a letter {alphabetic:.2f}, under {_ALPHABETIC_WORDS}"
    if len(words) >= _ENOUGH_WORDS:
        yield from _repetitions(words, lines)


def _over(what: str, marks: Sequence[bool], limit: float) -> Iterator[str]:
    share = sum(marks) / len(marks) if len(marks) > 1 else 0.0
    if share > limit:
        yield f"{what} {share:.2f}, over {limit}"


def _repetitions(words: list[str], lines: list[str]) -> Iterator[str]:
    repeated = [line for line, count in Counter(lines).items() for _ in range(count - 1)]
    characters = sum(map(len, lines))
    for what, share, limit in (
        ("lines that repeat another", len(repeated) / len(lines), _DUPLICATE_LINES[0]),
        ("characters in such lines", sum(map(len, repeated)) / characters, _DUPLICATE_LINES[1]),
    ):
        if share > limit:
            yield f"{what} {share:.2f}, over {limit}"
    total = sum(map(len, words))
    for length, limit in _TOP_RUNS.items():
        runs = Counter(tuple(words[start : start + length]) for start in range(len(words) - length + 1))
        run, count = runs.most_common(1)[0]
        share = sum(map(len, run)) * count / total
        if count > 1 and share > limit:
            yield f"characters in the commonest {length} words {share:.2f}, over {limit}"
    for length, limit in _DUPLICATE_RUNS.items():
        share = _in_repeated_runs(words, length) / total
        if share > limit:
            yield f"characters in repeated {length} words {share:.2f}, over {limit}"


def _in_repeated_runs(words: list[str], length: int) -> int:
    """Characters of words that lie in a run which was there before; each counts once."""
    seen: set[tuple[str, ...]] = set()
    marked = [False] * len(words)
    for start in range(len(words) - length + 1):
        run = tuple(words[start : start + length])
        if run in seen:
            marked[start : start + length] = [True] * length
        seen.add(run)
    return sum(len(word) for word, is_marked in zip(words, marked, strict=True) if is_marked)
