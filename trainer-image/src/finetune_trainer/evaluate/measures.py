"""From rows to numbers: what a metric makes of any selection of rows, so that intervals and tests need nothing more."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_CELLS = 2_000_000
"""Elements of the tables that are counted at once: 16 MB."""


class Measure(Protocol):
    """One metric of one system, row by row."""

    @property
    def rows(self) -> Array:
        """What each row says, in its stored order: a summed loss, a score, the code of a label."""

    def of(self, rows: Array, picks: Array | None = None) -> Array:
        """The metric of each selection of rows.

        Args:
            rows: What rows say, selections x rows, or one selection alone.
            picks: Which stored rows they are, of the same shape; None: all of them, in their order.
        """

    @property
    def is_binary(self) -> bool:
        """Whether every row says 0 or 1 and the metric is their mean."""


@dataclass(frozen=True)
class Mean:
    """A weighted mean of rows."""

    rows: Array
    weights: Array
    """Tokens of a loss, or 1."""
    exponential: bool = False
    """Whether the metric is e to the mean: perplexity of a loss in nats."""

    @classmethod
    def over(
        cls, values: Sequence[float], weights: Sequence[float] | None = None, *, exponential: bool = False
    ) -> Self:
        """Of plain sequences; unweighted by default."""
        rows = np.asarray(values, dtype=np.float64)
        heavy = np.ones_like(rows) if weights is None else np.asarray(weights, dtype=np.float64)
        return cls(rows, heavy, exponential)

    @property
    def is_binary(self) -> bool:
        """Whether McNemar's test fits."""
        return not self.exponential and bool(np.isin(self.rows, (0.0, 1.0)).all() and (self.weights == 1).all())

    def of(self, rows: Array, picks: Array | None = None) -> Array:
        """The mean of each selection."""
        weights = self.weights if picks is None else self.weights[picks]
        means = rows.sum(-1) / np.maximum(np.broadcast_to(weights, rows.shape).sum(-1), 1e-12)
        if not self.exponential:
            return np.asarray(means)
        with np.errstate(over="ignore"):  # infinite, and left out as such
            return np.asarray(np.exp(means))


@dataclass(frozen=True)
class Labels:
    """A metric of predicted labels against the right ones, from their table of counts."""

    rows: Array
    """Codes of the predicted labels."""
    truth: Array
    """Codes of the right ones."""
    labels: tuple[str, ...]
    """What the codes mean."""
    known: int
    """The first so many labels are those of the held-out rows; MacroF1 is their mean."""
    kind: str
    """MacroF1 or CohenKappa, as scikit-learn defines them."""
    is_binary: bool = field(default=False, init=False)

    def of(self, rows: Array, picks: Array | None = None) -> Array:
        """The metric of each selection, many at a time."""
        flat = np.atleast_2d(rows)
        truth = np.broadcast_to(self.truth, flat.shape) if picks is None else self.truth[np.atleast_2d(picks)]
        size = len(self.labels)
        step = max(1, _CELLS // (size * size))
        parts = [
            self._of_tables(_tables(truth[at : at + step], flat[at : at + step], size))
            for at in range(0, len(flat), step)
        ]
        found = np.concatenate(parts)
        return found if np.ndim(rows) > 1 else found[0]

    def _of_tables(self, tables: Array) -> Array:
        right, said, true = np.einsum("rii->ri", tables), tables.sum(1), tables.sum(2)
        if self.kind == "MacroF1":
            # As f1_score(labels=..., average="macro", zero_division=0).
            scores = 2 * right / np.maximum(said + true, 1)
            return np.asarray(scores[:, : self.known].mean(1))
        total = tables.sum((1, 2))
        observed, chance = right.sum(1) / total, (said * true).sum(1) / total**2
        # All in one cell: agreement that chance explains wholly; scikit-learn answers nan.
        return np.asarray(np.where(chance < 1, (observed - chance) / np.where(chance < 1, 1 - chance, 1), 0.0))


def _tables(truth: Array, said: Array, size: int) -> Array:
    """Confusion tables, selections x right x predicted."""
    cells = truth * size + said + (np.arange(len(truth)) * size * size)[:, None]
    return np.bincount(cells.ravel(), minlength=len(truth) * size * size).reshape(len(truth), size, size).astype(float)


def coded(truth: Sequence[str], answers: Sequence[str], others: Iterable[str]) -> tuple[Array, Array, tuple[str, ...]]:
    """Right and predicted labels as codes, and the labels: those of `truth` first, in their order, then `others`.

    An answer that is no label is OTHER, the last one.
    """
    held_out = sorted(set(truth))
    labels = (*held_out, *sorted(set(others) - set(held_out)), OTHER)
    code = {name: at for at, name in enumerate(labels)}
    wrong = len(labels) - 1
    return (
        np.asarray([code[each] for each in truth]),
        np.asarray([code.get(each, wrong) for each in answers]),
        labels,
    )


OTHER = "(other)"
"""Stands for every answer that is no label of the dataset."""
