"""What is done of a batch, in the store: one file per shard, whole or not there.

A shard's file begins with its manifest (first row, counts, sha256 of the rest); then come its lines of the output and
of the error file. Each shard is named by its first row and begins where the one before ends, so that shards may have
any size, and two pods that overlap for seconds never make a row appear twice: whoever reads follows the one chain.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_contract.base import Count, Document, Sha256
from finetune_contract.batching import BatchCounts, ErrorCount
from finetune_store.store import Store

log = logging.getLogger(__name__)


class ShardManifest(Document):
    """The first line of a shard."""

    first: Count
    """Its first row."""
    counts: BatchCounts
    errors: tuple[ErrorCount, ...] = ()
    sha256: str
    """Of all after this line, 64 hexadecimal digits."""


@dataclass(frozen=True)
class Shard:
    """Some rows with what became of them."""

    first: int
    counts: BatchCounts
    errors: Counter[str]
    output: list[str]
    """Lines of the output file, in the input's order."""
    failures: list[str]
    """Lines of the error file, in the input's order."""


class Shards:
    """The shards of one key and one input."""

    def __init__(self, store: Store, key: str, digest: Sha256) -> None:
        """Take what names them: files that have changed are another input."""
        self._store = store
        self._key = key
        self._folder = f"shards/{digest.removeprefix('sha256:')[:16]}"

    def seal(self, shard: Shard) -> None:
        """Keep a shard: it is there as a whole, or not at all."""
        text = "".join(f"{line}\n" for line in (*shard.output, *shard.failures))
        manifest = ShardManifest(
            first=shard.first,
            counts=shard.counts,
            errors=tuple(ErrorCount(code=code, rows=rows) for code, rows in sorted(shard.errors.items())),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        self._store.record(self._key, self._path(shard.first), f"{manifest.to_json()}\n{text}")

    def chain(self) -> Iterator[Shard]:
        """All shards from the first row on, each verified; ends where one is missing or damaged."""
        first = 0
        while (shard := self._read(first)) is not None:
            yield shard
            first += shard.counts.rows

    def _read(self, first: int) -> Shard | None:
        text = self._store.recorded(self._key, self._path(first))
        if text is None:
            return None
        head, _, rest = text.partition("\n")
        try:
            manifest = ShardManifest.model_validate_json(head)
        except ValidationError as error:
            log.warning("shard %d is answered again: %s", first, error.errors()[0]["msg"])
            return None
        lines = rest.splitlines()
        counts = manifest.counts
        is_whole = manifest.sha256 == hashlib.sha256(rest.encode()).hexdigest() and manifest.first == first
        if not is_whole or len(lines) != counts.rows or not counts.rows:
            log.warning("shard %d is damaged; it is answered again", first)
            return None
        errors = Counter({each.code: each.rows for each in manifest.errors})
        return Shard(first, counts, errors, lines[: counts.succeeded], lines[counts.succeeded :])

    def _path(self, first: int) -> str:
        return f"{self._folder}/{first:012d}.jsonl"


class Pace:
    """How many rows the next shard has: about a minute's worth, and not more than memory and the plan allow."""

    _FIRST = 64
    _SECONDS = 60.0
    _BYTES = 64 * 1024 * 1024

    def __init__(self, most: int) -> None:
        """Take the most rows a shard may have."""
        self._most = most
        self.rows = min(most, self._FIRST)

    def learn(self, shard: Shard) -> None:
        """Take how long a shard took, and how large it became."""
        done, seconds = shard.counts.rows, max(shard.counts.seconds, 1e-3)
        size = sum(map(len, shard.output)) + 1
        self.rows = max(1, min(self._most, int(done * self._SECONDS / seconds), int(done * self._BYTES / size)))


class Tally:
    """What became of all rows so far."""

    def __init__(self) -> None:
        self.counts = BatchCounts()
        self.errors: Counter[str] = Counter()

    def add(self, shard: Shard) -> None:
        """Count a shard."""
        self.counts = self.counts.plus(shard.counts)
        self.errors.update(shard.errors)
