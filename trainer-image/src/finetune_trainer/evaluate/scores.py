"""From rows to numbers with intervals."""

from collections.abc import Sequence

import numpy as np

from finetune_contract.evaluating import Metric, Score

_RESAMPLES = 1000
_SIDES = (2.5, 97.5)
"""Percentiles of a 95 % interval."""


def score(metric: Metric, system: str, totals: Sequence[float], weights: Sequence[float], seed: int) -> Score:
    """The mean of rows, weighted, with its bootstrap interval (Efron 1979, percentile method) over rows.

    Args:
        metric: What was measured.
        system: On which system.
        totals: Per row: summed loss, or 1 for a match and 0 for none.
        weights: Per row: tokens of the loss, or 1.
        seed: Of the resampling.
    """
    numerator, denominator = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(numerator), (_RESAMPLES, len(numerator)))
    means = numerator[picks].sum(1) / denominator[picks].sum(1)
    low, high = np.percentile(means, _SIDES)
    return Score(
        metric=metric,
        system=system,
        value=round(float(numerator.sum() / denominator.sum()), 6),
        low=round(float(low), 6),
        high=round(float(high), 6),
        rows=len(numerator),
    )
