"""Rows that nearly repeat each other: MinHash proposes, exact Jaccard decides, and memory does not grow with the text.

A text is its set of shingles, overlapping runs of five words. 128 minimum hashes estimate how much two sets share
(Broder 1997); bands of them find the pairs worth comparing (Leskovec et al., Mining of Massive Datasets, 3.4). It is
all numpy over thousands of rows at a time; what is kept of a row are the 64 bits of each band, in a file.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np

SHINGLE_WORDS = 5
PERMUTATIONS = 128
_PROPOSED_SHARE = 0.9
"""Bands propose from this share of the similarity on: at its own threshold they would miss one pair in eight."""
_MISSED_WEIGHT = 0.9
"""How much worse a missed pair is than a needless one, which an exact comparison sorts out at once."""
CROWD = 100
"""Rows of one band's bucket that another row is compared with: texts of one template would all be compared with all."""
_CACHED_SETS = 20_000
_CACHED_WORDS = 300_000

Array = np.ndarray[Any, np.dtype[Any]]

# Scripts without spaces between words: each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


class WordHashes(dict[str, int]):
    """64 bits for a word, the same on every machine; words that come again are not hashed again."""

    def __missing__(self, word: str) -> int:
        """Hash a new word."""
        if len(self) >= _CACHED_WORDS:
            self.clear()
        value = int.from_bytes(blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
        self[word] = value
        return value


_hashes = WordHashes()


def runs_of_words(texts: Sequence[str], length: int, *, whole_if_short: bool) -> tuple[Array, Array]:
    """Hashes of every run of so many words, texts one after the other, and how many each text has.

    Args:
        texts: What is hashed.
        length: Words of a run.
        whole_if_short: A text with fewer words has its words instead, and itself where it has none.
    """
    lists = [words(text) for text in texts]
    if whole_if_short:
        lists = [found or [text] for found, text in zip(lists, texts, strict=True)]
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    flat = np.fromiter(map(_hashes.__getitem__, chain.from_iterable(lists)), np.uint64, int(counts.sum()))
    ends = np.cumsum(counts)
    total = np.zeros(len(flat), np.uint64)
    for place in range(length):
        total[: max(0, len(flat) - place)] += flat[place:] * _WEIGHTS[place]
    total = _mixed(total)
    # A run must end where its text does.
    left = np.repeat(ends, counts) - np.arange(len(flat))
    is_run = left >= length
    if whole_if_short:
        is_short = np.repeat(counts < length, counts)
        total[is_short] = _mixed(flat[is_short])
        is_run |= is_short
    texts_of = np.repeat(np.arange(len(lists)), counts)[is_run]
    return total[is_run], np.bincount(texts_of, minlength=len(lists))


_WEIGHTS = np.array(
    [int.from_bytes(blake2b(bytes([place]), digest_size=8).digest(), "little") | 1 for place in range(64)], np.uint64
)
"""Odd numbers, one for each place in a run: the order of its words counts."""


def _mixed(values: Array) -> Array:
    """Every bit of a hash in all of its bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed


def shingle_set(text: str) -> Array:
    """The distinct shingles of one text, sorted."""
    found, _ = runs_of_words([text], SHINGLE_WORDS, whole_if_short=True)
    return np.unique(found)


def jaccard(left: Array, right: Array) -> float:
    """The share of shingles that two sorted sets have in common."""
    common = np.intersect1d(left, right, assume_unique=True).size
    return float(common / (left.size + right.size - common))


@dataclass(frozen=True)
class Banding:
    """How minimum hashes are cut into bands."""

    bands: int
    rows: int
    """Hashes of a band."""

    def keys(self, texts: Sequence[str]) -> Array:
        """64 bits for each band and text: equal where all hashes of the band are. Shape (bands, texts)."""
        found, counts = runs_of_words(texts, SHINGLE_WORDS, whole_if_short=True)
        starts = np.cumsum(counts) - counts
        values = (found >> np.uint64(32)).astype(np.uint32)
        factors, addends = _permutations()
        keys = np.zeros((self.bands, len(texts)), np.uint64)
        buffer = np.empty_like(values)
        for number in range(self.bands * self.rows):
            np.multiply(values, factors[number], out=buffer)
            np.add(buffer, addends[number], out=buffer)
            minimum = np.minimum.reduceat(buffer, starts)
            band = keys[number // self.rows]
            band *= np.uint64(0x9E3779B97F4A7C15)
            band += minimum
        mixed: Array = _mixed(keys)
        return mixed


@cache
def _permutations() -> tuple[Array, Array]:
    """Linear permutations of 32 bits: odd factors and addends, the same for ever."""
    random = np.random.Generator(np.random.PCG64(1))
    return (
        random.integers(0, 2**31, PERMUTATIONS, np.uint32) * np.uint32(2) + np.uint32(1),
        random.integers(0, 2**32, PERMUTATIONS, np.uint32),
    )


@cache
def banding(similarity: float) -> Banding:
    """The bands that propose pairs of a similarity: the fewest weighted mistakes on both sides of the threshold.

    A pair of Jaccard similarity s has a band in common with probability 1 - (1 - s^rows)^bands.
    """
    threshold = similarity * _PROPOSED_SHARE
    shares = (np.arange(1000) + 0.5) / 1000
    is_wanted = shares >= threshold
    best = (np.inf, Banding(1, 1))
    for bands in range(1, PERMUTATIONS + 1):
        for rows in range(1, PERMUTATIONS // bands + 1):
            missed = (1 - shares**rows) ** bands
            wrong = _MISSED_WEIGHT * missed[is_wanted].sum() + (1 - _MISSED_WEIGHT) * (1 - missed[~is_wanted]).sum()
            best = min(best, (float(wrong), Banding(bands, rows)), key=lambda item: item[0])
    return best[1]


class Buckets:
    """Which rows have a band in common; rows that have none are not in it."""

    def __init__(self, band_keys: Iterator[Array], rows: int) -> None:
        """Read the keys of one band after the other.

        Args:
            band_keys: For each band, the key of every row.
            rows: How many rows there are.
        """
        members: list[Array] = []
        buckets: list[Array] = []
        self.count = 0
        for keys in band_keys:
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            starts = (
                np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if rows else np.array([], int)
            )
            sizes = np.diff(np.append(starts, rows))
            is_shared = np.repeat(sizes > 1, sizes)
            numbers = np.repeat(np.cumsum(sizes > 1) - 1, sizes)[is_shared] + self.count
            members.append(order[is_shared].astype(np.uint32))
            buckets.append(numbers.astype(np.uint32))
            self.count += int((sizes > 1).sum())
        member = np.concatenate(members) if members else np.array([], np.uint32)
        by_row = np.argsort(member, kind="stable")
        self._buckets = np.concatenate(buckets)[by_row] if buckets else member
        self.rows, firsts = np.unique(member[by_row], return_index=True)
        """Rows that share a bucket, in order."""
        self._bounds = np.append(firsts, len(member))

    def each(self) -> Iterator[tuple[int, list[int]]]:
        """Every row that shares a bucket, in order, with its buckets."""
        for place, row in enumerate(self.rows):
            yield int(row), self._buckets[self._bounds[place] : self._bounds[place + 1]].tolist()


class Comparer:
    """Compares rows exactly, and remembers the sets of those it met last."""

    def __init__(self, text_of: Callable[[int], str], similarity: float) -> None:
        """Take where the texts are, and the Jaccard similarity from which two rows are nearly the same."""
        self._text_of = text_of
        self._similarity = similarity
        self._sets: OrderedDict[int, Array] = OrderedDict()

    def are_alike(self, left: int, right: int) -> bool:
        """Whether two rows are nearly the same."""
        one, other = self._set(left), self._set(right)
        # Sets of too different sizes cannot be alike.
        if min(one.size, other.size) < self._similarity * max(one.size, other.size):
            return False
        return jaccard(one, other) >= self._similarity

    def _set(self, row: int) -> Array:
        found = self._sets.get(row)
        if found is None:
            found = self._sets[row] = shingle_set(self._text_of(row))
            if len(self._sets) > _CACHED_SETS:
                self._sets.popitem(last=False)
        return found


def near_duplicates(buckets: Buckets, comparer: Comparer) -> dict[int, int]:
    """Row -> an earlier row that stays and that it nearly repeats."""
    staying: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for row, own in buckets.each():
        candidates = sorted({other for bucket in own for other in staying.get(bucket, ())})
        match = next((other for other in candidates if comparer.are_alike(row, other)), None)
        if match is not None:
            found[row] = match
            continue
        for bucket in own:
            others = staying.setdefault(bucket, [])
            if len(others) < CROWD:
                others.append(row)
    return found


def near_groups(buckets: Buckets, comparer: Comparer) -> dict[int, int]:
    """Row -> the first row of its group: all that are nearly the same, directly or by way of others.

    Rows that are alone are not in it.
    """
    first_of: dict[int, int] = {}

    def root(row: int) -> int:
        while (above := first_of.get(row, row)) != row:
            first_of[row] = first_of.get(above, above)
            row = above
        return row

    met: dict[int, list[int]] = {}
    for row, own in buckets.each():
        for other in sorted({other for bucket in own for other in met.get(bucket, ())}):
            # A row of the same group would say nothing new.
            if root(other) != root(row) and comparer.are_alike(row, other):
                low, high = sorted((root(other), root(row)))
                first_of[high] = low
        for bucket in own:
            others = met.setdefault(bucket, [])
            if len(others) < CROWD:
                others.append(row)
    return {row: root(row) for row in first_of}
