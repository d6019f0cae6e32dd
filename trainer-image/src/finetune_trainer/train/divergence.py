"""When a training loss has left for good: robust against single bad batches, blind to ordinary noise."""

from collections import deque
from collections.abc import Iterable
from statistics import median

_BLOCK = 20
"""Logged losses in a row that are compared, and whose median is the reference where it is the lowest so far."""

_ABOVE = 17
"""Of the last block, so many must lie above the limit. Losses of small batches are often good or bad and nothing
between, so that medians jump: of 300 simulated runs with 30 % bad losses, a limit on medians stopped all, this none."""

_SIGMA_PER_MAD = 1.4826
"""A normal distribution's standard deviation in median absolute deviations (Rousseeuw and Croux 1993)."""

_DEVIATIONS = 8.0
"""Standard deviations of the reference that a loss must be above it."""

_OWN_DEVIATIONS = 3.0
"""Standard deviations of the last block itself; no noise around one level reaches it, however lucky the reference."""

_LEAST_SHARE = 0.5
_LEAST_NATS = 0.5
"""A loss must also be half the reference and half a nat above it: where it hardly moves, its deviation is tiny.
Twice that while the reference is the very first loss, the only one of the model as it came: it may be a lucky one."""


class LossCurve:
    """Follows logged losses and says when the run has diverged."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        """Take the losses that were logged by earlier attempts, oldest first."""
        self._last: deque[float] = deque(maxlen=_BLOCK)
        self._usual: float | None = None
        self._deviation = 0.0
        self._is_first = True
        for loss in losses:
            self.add(loss)

    def add(self, loss: float) -> str | None:
        """Take one more loss; answers what has happened if the run has diverged."""
        self._last.append(loss)
        if self._usual is None:
            self._usual = loss
        if len(self._last) < _BLOCK:
            return None
        middle = median(self._last)
        own = median(abs(each - middle) for each in self._last)
        if middle < self._usual:
            self._usual, self._deviation, self._is_first = middle, own, False
        least = 2.0 if self._is_first else 1.0
        limit = self._usual + max(
            _SIGMA_PER_MAD * max(_DEVIATIONS * self._deviation, _OWN_DEVIATIONS * own),
            least * max(_LEAST_SHARE * abs(self._usual), _LEAST_NATS),
        )
        above = sum(each > limit for each in self._last)
        if above < _ABOVE:
            return None
        return f"{above} of the last {_BLOCK} logged losses are above {limit:.4g}, their median is {middle:.4g}; " + (
            f"the first was {self._usual:.4g}" if self._is_first else f"the lowest was {self._usual:.4g}"
        )
