"""From measures to scores: intervals, and the paired comparison of the tuned model with a baseline."""

import numpy as np

from finetune_contract.evaluating import Metric, Score
from finetune_trainer.evaluate.measures import Array, Measure

_RESAMPLES = 1000
_PERMUTATIONS = 1999
_SIDES = (2.5, 97.5)
"""Percentiles of a 95 % interval."""
_DIGITS = 6


def score(metric: Metric, system: str, measured: Measure, seed: int, tuned: Measure | None = None) -> Score:
    """A metric with its bootstrap interval (Efron 1979, percentile method) over rows.

    Args:
        metric: What was measured.
        system: On which system.
        measured: The rows.
        seed: Of the resampling: the same rows are drawn for every system, so that differences are paired.
        tuned: The tuned model's rows, where `system` is a baseline: adds their difference, its interval and a test.
    """
    rows = measured.rows
    picks = np.random.default_rng(seed).integers(0, len(rows), (_RESAMPLES, len(rows)))
    values = measured.of(rows[picks], picks)
    low, high = _interval(values)
    found = Score(
        metric=metric,
        system=system,
        value=_rounded(measured.of(rows)),
        low=low,
        high=high,
        rows=len(rows),
    )
    if tuned is None:
        return found
    with np.errstate(invalid="ignore"):  # infinite less infinite
        differences = tuned.of(tuned.rows[picks], picks) - values
    least, most = _interval(differences)
    return found.model_copy(
        update={
            "difference": _rounded(tuned.of(tuned.rows) - measured.of(rows)),
            "difference_low": least,
            "difference_high": most,
            "p_value": _rounded(p_value(tuned, measured, seed)),
        }
    )


def p_value(tuned: Measure, baseline: Measure, seed: int) -> float:
    """Two-sided: how likely a difference this large is if the two systems were the same.

    McNemar's exact test (1947) where every row is right or wrong, else a test that exchanges the systems' rows at
    random (Pitman 1937), all exchanges where there are few.
    """
    from scipy import stats

    if tuned.is_binary and baseline.is_binary:
        better = int((tuned.rows > baseline.rows).sum())
        worse = int((tuned.rows < baseline.rows).sum())
        return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    if np.array_equal(tuned.rows, baseline.rows):
        return 1.0

    def difference(ours: Array, theirs: Array, axis: int = -1) -> Array:
        del axis  # always the last one
        return tuned.of(np.asarray(ours)) - baseline.of(np.asarray(theirs))

    found = stats.permutation_test(
        (tuned.rows, baseline.rows),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _interval(values: Array) -> tuple[float | None, float | None]:
    """None for an end that is not finite: a perplexity's can overflow."""
    with np.errstate(invalid="ignore"):
        low, high = np.percentile(values, _SIDES)
    return (_rounded(low) if np.isfinite(low) else None), (_rounded(high) if np.isfinite(high) else None)


def _rounded(value: float | Array) -> float:
    """To six digits: a result has to fit a termination message."""
    return float(f"{float(value):.{_DIGITS}g}")
