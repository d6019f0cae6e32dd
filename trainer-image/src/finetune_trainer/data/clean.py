"""Removing duplicates, whatever the order in which rows were read."""

import re
from collections.abc import Callable, Iterable, Iterator

from finetune_contract.datasets import DropReason
from finetune_trainer.data.rows import Account, Row

_SHINGLE_WORDS = 5
_PERMUTATIONS = 128
_PROPOSED_SHARE = 0.9
"""The index proposes from this share of the similarity on: at its own threshold it would miss one pair in eight."""
_MISSED_WEIGHT = 0.9
"""How much worse a missed candidate is than a needless one, which an exact comparison sorts out at once."""

# Scripts without spaces between words: each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def without_exact_duplicates(rows: Iterable[Row], account: Account) -> Iterator[Row]:
    """Rows with a content of their own; `rows` are sorted by digest."""
    kept: Row | None = None
    for row in rows:
        if kept is not None and row.digest == kept.digest:
            account.drop(row.origin, DropReason.EXACT_DUPLICATE, str(kept.origin))
        else:
            kept = row
            yield row


def without_near_duplicates(rows: list[Row], similarity: float, account: Account) -> list[Row]:
    """Rows of which no two are nearly the same; `rows` are sorted by digest, and the first of a group stays."""
    kept: list[Row] = []
    index = NearIndex(similarity)
    for row, signature in zip(rows, index.signatures(rows), strict=True):
        match = next(index.matches(row, signature), None)
        if match is None:
            index.add(row, signature)
            kept.append(row)
        else:
            account.drop(row.origin, DropReason.NEAR_DUPLICATE, str(match.origin))
    return kept


def near_groups(rows: list[Row], similarity: float) -> list[list[Row]]:
    """Rows with all that are nearly the same, directly or by way of others; `rows` are sorted by digest."""
    index = NearIndex(similarity)
    group_of: dict[str, list[Row]] = {}
    for row, signature in zip(rows, index.signatures(rows), strict=True):
        if row.digest in group_of:
            group_of[row.digest].append(row)
            continue
        group_of[row.digest] = [row]
        # A row of the same group would say nothing new; large groups would be compared for nothing.
        for match in index.matches(
            row, signature, unless=lambda row, other: group_of[row.digest] is group_of[other.digest]
        ):
            _join(group_of, match, row)
        index.add(row, signature)
    return list({id(group): group for group in group_of.values()}.values())


def _join(group_of: dict[str, list[Row]], match: Row, row: Row) -> None:
    """Move all of one row's group into the other's."""
    group = group_of[match.digest]
    for member in group_of[row.digest]:
        group.append(member)
        group_of[member.digest] = group


def shingles(text: str) -> frozenset[str]:
    """The overlapping runs of five words in a text; its words where it has fewer, itself where it has none."""
    words = _WORD.findall(text.lower())
    if len(words) < _SHINGLE_WORDS:
        return frozenset(words or [text])
    return frozenset(
        " ".join(words[start : start + _SHINGLE_WORDS]) for start in range(len(words) - _SHINGLE_WORDS + 1)
    )


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """The share of shingles that two texts have in common."""
    return len(left & right) / len(left | right)


class NearIndex:
    """Finds rows that are nearly the same: MinHash LSH proposes, exact Jaccard decides."""

    def __init__(self, similarity: float) -> None:
        """Take the Jaccard similarity from which two rows are nearly the same."""
        from datasketch import MinHashLSH

        self._similarity = similarity
        weights = (1 - _MISSED_WEIGHT, _MISSED_WEIGHT)
        self._lsh = MinHashLSH(threshold=similarity * _PROPOSED_SHARE, num_perm=_PERMUTATIONS, weights=weights)
        self._rows: dict[int, Row] = {}

    def signatures(self, rows: list[Row]) -> Iterator[object]:
        """A MinHash of each row, one at a time."""
        from datasketch import MinHash

        texts = ([shingle.encode() for shingle in shingles(row.text())] for row in rows)
        signatures: Iterator[object] = MinHash.generator(texts, num_perm=_PERMUTATIONS, seed=1)
        return signatures

    def matches(
        self, row: Row, signature: object, unless: Callable[[Row, Row], bool] = lambda *_: False
    ) -> Iterator[Row]:
        """Rows of the index that are nearly the same, in the order of their digests.

        `unless` spares the comparison of two rows about which the caller knows enough, as of the moment it is asked.
        """
        candidates = sorted((self._rows[key] for key in self._lsh.query(signature)), key=lambda other: other.digest)
        # Shingles are made again for the few candidates rather than kept for all rows.
        own = shingles(row.text()) if candidates else frozenset()
        for other in candidates:
            if not unless(row, other) and jaccard(own, shingles(other.text())) >= self._similarity:
                yield other

    def add(self, row: Row, signature: object) -> None:
        """Put a row into the index."""
        key = len(self._rows)
        self._rows[key] = row
        self._lsh.insert(key, signature, check_duplication=False)
