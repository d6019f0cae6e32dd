"""What is measured of a revision's rows: lengths, tokens, labels, turns, and what a maximal length would cut."""

import numpy as np

from finetune_contract.base import Count, Document, Label, Sha256
from finetune_contract.cleaning import LENGTHS, Changed, Found, LabelCount, TokenCounts, Truncation
from finetune_contract.datasets import Dropped, RowFormat
from finetune_trainer.data.near import Array
from finetune_trainer.data.shelf import Shelf

_BINS = 24
_BATCH = 8
_LABELS = 50


class Histogram(Document):
    """How many rows have which length; the last bin has all that are longer, too."""

    unit: str
    width: Count
    rows: tuple[Count, ...]
    p50: Count
    p95: Count
    p99: Count
    max: Count


class SplitStatistics(Document):
    """One split's."""

    rows: Count
    characters: Histogram
    lengths: Histogram | None = None
    """In tokens."""
    tokens: TokenCounts | None = None
    labels: tuple[LabelCount, ...] = ()
    """The commonest; `other_labels` have the rest."""
    other_labels: Count = 0
    turns: dict[str, Count] = {}
    """Messages of a conversation -> rows; `10+` for long ones."""


class Statistics(Document):
    """`statistics.json`."""

    name: Label
    digest: Sha256
    format: RowFormat
    rows_read: Count
    rows_kept: Count
    dropped: tuple[Dropped, ...] = ()
    changed: tuple[Changed, ...] = ()
    personal_data: tuple[Found, ...] = ()
    tokenizer: Sha256 | None = None
    splits: dict[str, SplitStatistics] = {}
    truncation: tuple[Truncation, ...] = ()
    instruction: str = ""
    """What was cut off all prompts."""


def split_statistics(shelf: Shelf, numbers: Array, *, with_tokens: bool) -> SplitStatistics:
    """What is measured of some rows."""
    lengths = shelf.measure("tokens")[numbers]
    codes, counts = np.unique(shelf.measure("label")[numbers], return_counts=True)
    names = shelf.labels
    found = sorted(
        ((-int(count), name) for code, count in zip(codes, counts, strict=True) if (name := names[code]) is not None)
    )
    turns, rows = np.unique(np.minimum(shelf.measure("turns")[numbers], 10), return_counts=True)
    has_turns = bool(turns.size) and int(turns[-1]) > 1
    return SplitStatistics(
        rows=len(numbers),
        characters=histogram("characters", shelf.measure("characters")[numbers]),
        lengths=histogram("tokens", lengths) if with_tokens else None,
        tokens=_token_counts(lengths, shelf.measure("supervised")[numbers]) if with_tokens else None,
        labels=tuple(LabelCount(label=name[:128], rows=-count) for count, name in found[:_LABELS]),
        other_labels=sum(-count for count, _ in found[_LABELS:]),
        turns={"10+" if turn == 10 else str(turn): int(count) for turn, count in zip(turns, rows, strict=True)}
        if has_turns
        else {},
    )


def histogram(unit: str, lengths: Array) -> Histogram:
    """Bins of one width up to the 99th percentile, a round number wide."""
    p50, p95, p99 = (int(value) for value in np.percentile(lengths, (50, 95, 99), method="higher"))
    width = max(1, -(-p99 // _BINS))
    scale = 10 ** max(0, len(str(width)) - 2)
    width = -(-width // scale) * scale
    bins = np.bincount(np.minimum(lengths // width, _BINS), minlength=1)
    return Histogram(
        unit=unit, width=width, rows=tuple(bins.tolist()), p50=p50, p95=p95, p99=p99, max=int(lengths.max())
    )


def _token_counts(lengths: Array, supervised: Array) -> TokenCounts:
    p50, p95, p99 = (int(value) for value in np.percentile(lengths, (50, 95, 99), method="higher"))
    return TokenCounts(
        total=int(lengths.sum(dtype=np.int64)), p50=p50, p95=p95, p99=p99, max=int(lengths.max()),
        supervised=int(supervised.sum(dtype=np.int64)),
    )  # fmt: skip


def truncation(lengths: Array, first: Array, *, split_long: bool) -> tuple[Truncation, ...]:
    """What each usual maxLength would cut, up to the first that cuts nothing: as the trainer counts it.

    Args:
        lengths: Tokens of each train row.
        first: Place of the first token to learn.
        split_long: Whether long rows become several instead of being cut.
    """
    found = []
    for limit in LENGTHS:
        is_long = lengths > limit
        # Where the answer begins beyond the cut, nothing is left to learn, and the row is lost whole.
        kept = np.where(first < np.minimum(lengths, limit), np.minimum(lengths, limit), 0)
        lost = 0 if split_long else int(lengths.sum(dtype=np.int64) - kept.sum(dtype=np.int64))
        rows = int(is_long.sum())
        found.append(Truncation(max_length=limit, rows=rows, tokens=lost, padding_share=_padding(lengths, limit)))
        if not rows:
            break
    return tuple(found)


def _padding(lengths: Array, limit: int) -> float:
    """Share of padding in batches of eight rows as they come: what packing saves."""
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(np.minimum(lengths, limit))
    batches = np.append(shuffled, np.zeros(-len(shuffled) % _BATCH, shuffled.dtype)).reshape(-1, _BATCH)
    rows = np.full(len(batches), _BATCH)
    rows[-1] = len(shuffled) - _BATCH * (len(batches) - 1)
    padded = int((batches.max(axis=1).astype(np.int64) * rows).sum())
    return round(1 - int(shuffled.sum(dtype=np.int64)) / padded, 4) if padded else 0.0
