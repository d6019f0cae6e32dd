"""Which rows stay, and where: duplicates, splits, contamination. All of it over row numbers of a sorted shelf."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from finetune_contract.cleaning import ChangeReason
from finetune_contract.datasets import DatasetPlan, DropReason
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data import near
from finetune_trainer.data.contamination import contaminated
from finetune_trainer.data.mixture import side_of
from finetune_trainer.data.near import Array
from finetune_trainer.data.rows import Account, Change, Row
from finetune_trainer.data.shelf import Shelf
from finetune_trainer.data.split import SIDES, TEST, TRAIN, divide

log = logging.getLogger(__name__)

SPLIT_SIMILARITY = 0.85
"""From here on rows that are all kept are still too alike to be trained on and tested on."""

_NOBODY = -1


@dataclass(frozen=True)
class Part:
    """Rows of one split, sorted by digest, read from the shelf whenever they are asked for."""

    shelf: Shelf
    numbers: Array

    def __iter__(self) -> Iterator[Row]:
        """The rows, one at a time."""
        return self.shelf.rows(self.numbers)

    def digests(self) -> Iterator[str]:
        """Their digests, sorted."""
        return (self.shelf.digest(int(number)) for number in self.numbers)

    def texts(self) -> Iterator[str]:
        """What a person would read of each."""
        return (row.text() for row in self)


@dataclass
class Cleaned:
    """What is left."""

    parts: dict[str, Part]
    fractions: dict[str, float] = field(default_factory=dict)
    """Fractions that numbers of rows asked for have become."""


def similarity_of(plan: DatasetPlan) -> float | None:
    """The similarity from which rows are removed or, with a split, kept on one side; None: nobody asks."""
    if plan.near_duplicate_similarity is not None:
        return plan.near_duplicate_similarity
    return SPLIT_SIMILARITY if _is_divided(plan) else None


def clean(plan: DatasetPlan, shelf: Shelf, account: Account) -> Cleaned:
    """Remove duplicates, divide, remove what train rows share with the others.

    Raises:
        FineTuneError: DatasetInvalid when nothing is left, or too little to divide.
    """
    group_of = _groups(plan, shelf, account)
    if not (group_of != _NOBODY).any():
        raise FineTuneError(FailureReason.DATASET_INVALID, f"no row is left of {account.read}{account.counted()}")
    cleaned = _divided(plan, shelf, group_of, account)
    if plan.cleaning.decontaminate_ngram is not None and len(cleaned.parts) > 1:
        _decontaminate(cleaned, plan.cleaning.decontaminate_ngram, account)
    return cleaned


def _is_divided(plan: DatasetPlan) -> bool:
    split = plan.split
    if plan.source.mixture is not None:
        return False
    return bool(split.validation or split.test or split.validation_rows or split.test_rows)


def _groups(plan: DatasetPlan, shelf: Shelf, account: Account) -> Array:
    """For each row the first row of its group, which a split must not part; _NOBODY for a row that goes."""
    first_of = shelf.first_of_equals()
    group_of = first_of.copy()
    numbers = np.arange(len(shelf))
    if plan.exact_duplicates:
        for number in np.flatnonzero(first_of != numbers):
            account.drop(
                shelf.origin(int(number)), DropReason.EXACT_DUPLICATE, str(shelf.origin(int(first_of[number])))
            )
            group_of[number] = _NOBODY
    similarity = similarity_of(plan)
    if similarity is None:
        return group_of
    different = np.flatnonzero(first_of == numbers)
    started = time.monotonic()
    buckets = near.Buckets(shelf.band_keys(different), len(different))
    comparer = near.Comparer(lambda place: shelf.text(int(different[place])), similarity)
    log.info("%d of %d rows are compared with others", len(buckets.rows), len(different))
    if plan.near_duplicate_similarity is None:
        firsts = different.copy()
        for place, first in near.near_groups(buckets, comparer).items():
            firsts[place] = different[first]
        place_of = np.cumsum(first_of == numbers) - 1
        group_of = np.where(group_of == _NOBODY, _NOBODY, firsts[place_of[first_of]])
    else:
        _drop_near(shelf, different, near.near_duplicates(buckets, comparer), first_of, group_of, account)
    log.info("compared them in %.1f s", time.monotonic() - started)
    return group_of


def _drop_near(
    shelf: Shelf, different: Array, found: dict[int, int], first_of: Array, group_of: Array, account: Account
) -> None:
    """Leave out rows that nearly repeat others; copies that were to be kept repeat their first one, too."""
    match_of = {int(different[place]): int(different[match]) for place, match in found.items()}
    for number in np.flatnonzero(group_of != _NOBODY):
        first = int(first_of[number])
        match = match_of.get(first, first)
        if match != number:
            account.drop(shelf.origin(int(number)), DropReason.NEAR_DUPLICATE, str(shelf.origin(match)))
            group_of[number] = _NOBODY


def _divided(plan: DatasetPlan, shelf: Shelf, group_of: Array, account: Account) -> Cleaned:
    kept = np.flatnonzero(group_of != _NOBODY)
    if plan.source.mixture is not None:
        side = np.array([SIDES.index(side_of(shelf.origin(int(number)))) for number in kept])
        return Cleaned(_parts(shelf, kept, side))
    if not _is_divided(plan):
        return Cleaned({TRAIN: Part(shelf, kept)})
    firsts, group, sizes = np.unique(group_of[kept], return_inverse=True, return_counts=True)
    labels = _labels(plan, shelf, firsts)
    division = divide([shelf.digest(int(first)) for first in firsts], plan.split, sizes=sizes, labels=labels)
    side = division.sides[group]
    moved = set(division.moved)
    for number, own in zip(kept[np.isin(group, list(moved))], group[np.isin(group, list(moved))], strict=True):
        detail = f"to {SIDES[int(division.sides[own])]}"
        account.change(Change(shelf.origin(int(number)), ChangeReason.MOVED_TO_FILL_SPLIT, detail))
    return Cleaned(_parts(shelf, kept, side), division.fractions)


def _parts(shelf: Shelf, kept: Array, side: Array) -> dict[str, Part]:
    parts = {name: Part(shelf, kept[side == place]) for place, name in enumerate(SIDES)}
    return {name: part for name, part in parts.items() if len(part.numbers)}


def _labels(plan: DatasetPlan, shelf: Shelf, firsts: Array) -> Array | None:
    """Each group's label as a number, where the split is stratified."""
    if plan.split.stratify_by is None:
        return None
    columns = shelf.row(0).value()
    if plan.split.stratify_by != "label" or "label" not in columns:
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"spec.split.stratifyBy: {plan.split.stratify_by!r} is not a column with labels; the rows have "
            f"{', '.join(columns)}; name your labels' column in spec.columns.label and use stratifyBy: label",
        )
    return shelf.measure("label")[firsts]


def _decontaminate(cleaned: Cleaned, ngram: int, account: Account) -> None:
    """Take train rows away that share a run of words with a held-out row."""
    train = cleaned.parts[TRAIN]
    names = [name for name in (TEST, *SIDES) if name in cleaned.parts and name != TRAIN]
    held = np.concatenate([cleaned.parts[name].numbers for name in dict.fromkeys(names)])
    dirty, owners = contaminated(train.texts(), Part(train.shelf, held).texts(), ngram)
    for place, owner in zip(dirty, owners, strict=True):
        detail = f"shares {ngram} words with {train.shelf.origin(int(held[owner]))}"
        account.drop(train.shelf.origin(int(train.numbers[place])), DropReason.CONTAMINATED, detail)
    rest = np.delete(train.numbers, dirty)
    if not rest.size:
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"spec.prepare.decontaminate.ngram: every train row shares {ngram} words with a held-out row; "
            "use a larger number, or spec.prepare.stripInstructions",
        )
    cleaned.parts[TRAIN] = Part(train.shelf, rest)
