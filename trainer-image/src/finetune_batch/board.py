"""What a batch pod says while it runs: `/progress` and `/metrics`, served by the trainer's own server."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from finetune_contract.batching import BatchCounts, BatchPhase, BatchProgress

_GAUGES = {
    "total_rows": "Rows of the input.",
    "rows": "Rows that are done.",
    "failed": "Rows that were not answered.",
    "prompt_tokens": "Tokens of the prompts that were answered.",
    "generated_tokens": "Tokens of the answers.",
    "tokens_per_second": "Tokens generated per second by this pod, mean since it began to answer.",
}
"""Metrics, as `finetune_batch_<name>`."""


class BatchBoard:
    """How far a batch is; written by the one that answers, read by the HTTP threads."""

    def __init__(self, key: str) -> None:
        """Start in phase Reading, with nothing done."""
        self._lock = threading.Lock()
        self._progress = BatchProgress(key=key, phase=BatchPhase.READING, updated_at=datetime.now(UTC))
        self._began: float | None = None
        self._done = BatchCounts()
        self.kept = BatchCounts()
        """What is in the store, and a pod that is killed does not lose."""
        self.registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(f"finetune_batch_{name}", text, registry=self.registry) for name, text in _GAUGES.items()
        }

    def snapshot(self) -> BatchProgress:
        """What `/progress` answers now."""
        with self._lock:
            return self._progress

    def update(self, **changes: Any) -> None:  # noqa: ANN401 - any field of BatchProgress
        """Set fields of BatchProgress; `percent` and `updatedAt` follow."""
        with self._lock:
            found = self._progress.model_copy(update={**changes, "updated_at": datetime.now(UTC)})
            percent = min(100, 100 * found.counts.rows // found.total_rows) if found.total_rows else 0
            self._progress = found.model_copy(update={"percent": percent})
        self._publish(self._progress)

    def keep(self, counts: BatchCounts) -> None:
        """Take what is in the store."""
        self.kept = counts
        self.update(counts=counts, kept_rows=counts.rows)

    def answering_begins(self) -> None:
        """Start the clock of this pod's speed."""
        self._began = time.monotonic()
        self.update(phase=BatchPhase.ANSWERING)

    def batch_ends(self, rows: int, prompt_tokens: int, generated_tokens: int, *, failed: int = 0) -> None:
        """Count what this pod has done since the last call, and estimate when the last row is."""
        more = BatchCounts(
            rows=rows,
            succeeded=rows - failed,
            failed=failed,
            prompt_tokens=prompt_tokens,
            generated_tokens=generated_tokens,
        )
        self._done = self._done.plus(more)
        now = self.snapshot()
        counts = now.counts.plus(more)
        seconds = max(time.monotonic() - (self._began or time.monotonic()), 1e-3)
        remaining = (now.total_rows - counts.rows) * seconds / max(self._done.rows, 1)
        self.update(
            counts=counts,
            tokens_per_second=round(self._done.generated_tokens / seconds, 1),
            rows_per_second=round(self._done.rows / seconds, 2),
            estimated_completion_time=datetime.now(UTC) + timedelta(seconds=remaining),
        )

    def _publish(self, progress: BatchProgress) -> None:
        for name, gauge in self._gauges.items():
            value = getattr(progress.counts, name, None)
            value = getattr(progress, name, None) if value is None else value
            if value is not None:
                gauge.set(value)
