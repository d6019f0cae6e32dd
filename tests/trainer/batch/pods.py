"""Batch pods as processes."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from finetune_contract.batching import BatchPlan, BatchProgress, BatchResult
from tests.trainer.pods import Process


class Pod(Process[BatchProgress]):
    """One incarnation of a batch pod."""

    shows = BatchProgress
    deadline_seconds = 180.0
    """The first pod waits until torch has been imported, which takes a minute where many tests run."""

    def __init__(self, directory: Path, root: Path, plan: BatchPlan, source: Path, **environment: str) -> None:
        """Start it.

        Args:
            directory: For its own files.
            root: Where the store's claim is mounted, or its own disk where the store is in S3.
            plan: What it is asked to do.
            source: Where the claim of JSONL files is mounted.
            environment: Such as keys.
        """
        super().__init__(partial(_batch, environment), directory, plan, {"store": root, "source": source})

    def result(self) -> BatchResult:
        """Its termination message, parsed."""
        return BatchResult.model_validate_json(self.message())


def _batch(environment: Mapping[str, str], words: list[str]) -> None:
    from finetune_batch.__main__ import main

    os.environ.update(environment)
    raise SystemExit(main(words))
