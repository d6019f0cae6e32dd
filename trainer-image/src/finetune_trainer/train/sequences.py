"""Token sequences of the right length, with nothing lost that is not counted.

Completions (SFT) longer than the limit are cut at their end and counted; text (CPT) is split into several sequences, so
none of it is lost. Packing then fills sequences of one length with whole pieces, best fit first.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import Hyperparameters
from finetune_trainer.train.render import Tokens

log = logging.getLogger(__name__)

IGNORED = -100
"""The label of a token that the loss is not on; torch's own."""

_ROUND_TO = 64
"""Auto lengths are multiples of this many tokens."""

_USUAL_PACK = 1024
"""Tokens per pack with maxLength Auto: short rows waste under 2 % of it."""


@dataclass(frozen=True)
class TrainingData:
    """What the trainer iterates over, and what was counted on the way."""

    dataset: Any
    """datasets.Dataset with `input_ids`, `labels` and `seq_lengths` (lengths of the pieces in a pack)."""
    sequence_length: int
    """Tokens of the longest sequence that a row of `dataset` may have."""
    tokens: int
    supervised_tokens: int
    """Tokens that the loss is on, per epoch."""
    truncated_tokens: int
    truncated_rows: int
    dropped_rows: int = 0
    """Rows of which no supervised token was left."""
    is_packed: bool = False


class Piece(NamedTuple):
    """A sequence that is learnt as a whole."""

    ids: "np.ndarray[Any, np.dtype[np.int32]]"
    labels: "np.ndarray[Any, np.dtype[np.int32]]"
    """The ids, or IGNORED where the loss is not on; not shifted."""


def build_training_data(
    rows: Sequence[Tokens], settings: Hyperparameters, context: int, truncated_share: float, *, split_long: bool
) -> TrainingData:
    """Cut or split rows to length, refuse to lose too much, and pack.

    Args:
        rows: One per dataset row.
        settings: `max_length` and `packing` decide.
        context: Tokens that the model can attend to.
        truncated_share: Share of tokens that may be cut.
        split_long: Whether long rows become several sequences (text) instead of being cut (completions).

    Raises:
        FineTuneError: DataTruncated, InvalidPlan (maxLength), DatasetInvalid (nothing to learn from).
    """
    lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
    if not lengths.size:
        raise FineTuneError(FailureReason.DATASET_INVALID, "the dataset's train split has no rows")
    piece_length, pack_length = choose_lengths(lengths, settings, context, 1.0 if split_long else truncated_share)
    pieces = [piece for row in rows for piece in pieces_of(row, piece_length, split_long=split_long)]
    # Rows that lie together in the data must not end up in one pack, which is one optimiser step's view.
    random.Random(settings.seed).shuffle(pieces)
    kept = sum(len(piece.ids) for piece in pieces)
    total = int(lengths.sum())
    _refuse_truncation(kept, total, lengths, piece_length, truncated_share)
    supervised = sum(int((piece.labels != IGNORED).sum()) for piece in pieces)
    if not supervised:
        raise FineTuneError(FailureReason.DATASET_INVALID, "no row of the train split has a token to learn from")
    data = TrainingData(
        dataset=as_dataset(pieces, pack_length if settings.packing else None),
        sequence_length=pack_length if settings.packing else piece_length,
        tokens=kept,
        supervised_tokens=supervised,
        truncated_tokens=total - kept,
        truncated_rows=0 if split_long else int((lengths > piece_length).sum()),
        dropped_rows=0 if split_long else len(rows) - len(pieces),
        is_packed=settings.packing,
    )
    log.info(
        "%d rows, %d tokens (%d supervised; %d cut in %d rows, %d of those left out), %d sequences of %d tokens%s",
        len(rows), kept, data.supervised_tokens, data.truncated_tokens, data.truncated_rows, data.dropped_rows,
        len(data.dataset), data.sequence_length, ", packed" if settings.packing else "",
    )  # fmt: skip
    return data


def choose_lengths(
    lengths: "np.ndarray[Any, np.dtype[np.int64]]", settings: Hyperparameters, context: int, truncated_share: float
) -> tuple[int, int]:
    """The most tokens of a row and of a pack.

    Auto takes the 99th percentile of the rows, and more where that would cut more than `truncated_share`.

    Raises:
        FineTuneError: InvalidPlan when maxLength is beyond the model's context.
    """
    if settings.max_length is not None:
        if settings.max_length > context:
            raise FineTuneError(
                FailureReason.INVALID_PLAN,
                f"spec.hyperparameters.maxLength: {settings.max_length} is beyond the model's context; "
                f"use at most {context}",
            )
        return settings.max_length, settings.max_length
    length = min(context, _rounded_up(int(np.percentile(lengths, 99))))
    total = int(lengths.sum())
    # A row that is cut counts whole: where its answer was at the end, nothing is left to learn from it.
    while length < context and lengths[lengths > length].sum() > truncated_share * total:
        length = min(context, length + _ROUND_TO)
    if not settings.packing:
        return length, length
    pack = min(context, max(length, _USUAL_PACK))
    return pack, pack


def _rounded_up(tokens: int) -> int:
    return -(-tokens // _ROUND_TO) * _ROUND_TO


def pieces_of(row: Tokens, length: int, *, split_long: bool) -> list[Piece]:
    """A row as pieces of at most `length` tokens; none when no supervised token is left."""
    # Four bytes per token instead of some forty as Python's numbers: data sets have hundreds of millions of them.
    all_ids = np.asarray(row.ids, dtype=np.int32)
    all_labels = np.where(np.asarray(row.supervised, dtype=bool), all_ids, np.int32(IGNORED))
    starts = range(0, len(all_ids), length) if split_long else range(1)
    pieces = []
    for start in starts:
        ids, labels = all_ids[start : start + length], all_labels[start : start + length]
        # Nothing before a piece's first token predicts it.
        labels[:1] = IGNORED
        if split_long or bool((labels != IGNORED).any()):
            pieces.append(Piece(ids, labels))
    return pieces


def _refuse_truncation(
    kept: int, total: int, lengths: "np.ndarray[Any, np.dtype[np.int64]]", length: int, limit: float
) -> None:
    share = (total - kept) / total
    if share > limit:
        raise FineTuneError(
            FailureReason.DATA_TRUNCATED,
            f"spec.hyperparameters.maxLength: {length} tokens would cut {total - kept} of {total} tokens "
            f"({share:.1%}) in {int((lengths > length).sum())} rows; limits.truncatedShare allows {limit:.1%}. "
            f"The longest row has {int(lengths.max())} tokens",
        )


def as_dataset(pieces: list[Piece], pack_length: int | None) -> Any:  # noqa: ANN401 - datasets has no types
    """Pieces as the columns that TRL's collator reads; packed when a pack length is given."""
    from datasets import Dataset
    from trl import pack_dataset

    columns = {"input_ids": [piece.ids for piece in pieces], "labels": [piece.labels for piece in pieces]}
    if pack_length is None:
        return Dataset.from_dict({**columns, "seq_lengths": [[len(piece.ids)] for piece in pieces]})
    return pack_dataset(Dataset.from_dict(columns), pack_length, "bfd_split")


def with_blank(dataset: Any) -> Any:  # noqa: ANN401 - datasets has no types
    """The data and, behind it, a sequence with nothing to learn: for ranks that have nothing else to compute."""
    from datasets import concatenate_datasets

    ids = dataset[0]["input_ids"][:2]
    columns = {"input_ids": [ids], "labels": [[IGNORED] * len(ids)], "seq_lengths": [[len(ids)]]}
    return concatenate_datasets([dataset, type(dataset).from_dict(columns, features=dataset.features)])


def with_any_row(dataset: Any) -> Any:  # noqa: ANN401 - datasets has no types
    """The data and, behind it, a row that a trainer computes and counts for nothing, as `with_blank`."""
    from datasets import concatenate_datasets

    return concatenate_datasets([dataset, dataset.select([0])])
