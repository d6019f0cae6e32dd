"""Whole runs in this process, and runs that are told to stop at a step."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.results import Progress, TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.manifests import read_manifest
from finetune_store.s3store import S3Store
from finetune_store.store import Store
from finetune_trainer.evaluate.record import Evaluation
from finetune_trainer.progress import ProgressBoard
from finetune_trainer.stop import Stop
from finetune_trainer.timings import Stopwatch
from finetune_trainer.train.attempt import Attempt


class StopAt(Stop):
    """As if SIGTERM came while a step is computed."""

    def __init__(self, board: ProgressBoard, step: int) -> None:
        self._board, self._step = board, step
        super().__init__()

    @property
    def requested(self) -> bool:
        """Whether the step has come."""
        return self._board.snapshot().step >= self._step

    @requested.setter
    def requested(self, _: bool) -> None:
        """Only the step decides."""


def moved(origin: Store, ref: StoredReference, store: S3Store) -> StoredReference:
    """A directory of a claim, copied into a bucket; answers where it is there."""
    directory = origin.path(ref)
    manifest = read_manifest(directory)
    there = store.reference(manifest.kind, manifest.digest)
    store.upload(store.path(there).relative_to(store.root).as_posix(), directory, manifest)
    return there


def run(store: Store, plan: TrainingPlan, uid: str = "pod-a") -> TrainingResult:
    """A run, from its newest checkpoint to its end."""
    return run_and_watch(store, plan, uid)[0]


def run_and_watch(store: Store, plan: TrainingPlan, uid: str = "pod-a") -> tuple[TrainingResult, Progress]:
    """A run, and the last that /progress said."""
    from finetune_trainer.train.recipe import run as recipe

    board = ProgressBoard(plan.run_key, plan.attempt)
    result = recipe(Attempt(plan, uid, board, Stop(), Stopwatch()), store.root)
    assert result is not None
    return result, board.snapshot()


def run_interrupted(store: Store, plan: TrainingPlan, step: int) -> TrainingResult:
    """A run whose first pod is told to stop in `step`; the second goes on."""
    from finetune_trainer.train.recipe import run as recipe

    board = ProgressBoard(plan.run_key, plan.attempt)
    with pytest.raises(FineTuneError) as caught:
        recipe(Attempt(plan, "stopped", board, StopAt(board, step), Stopwatch()), store.root)
    assert caught.value.reason is FailureReason.PREEMPTED
    result = run(store, plan.model_copy(update={"attempt": 2}), "resumed")
    assert result.resumed_from_step == step
    return result


def directory_of(store: Store, result: TrainingResult) -> Path:
    """The artifact's files."""
    assert result.artifact is not None
    return store.root / "artifacts" / result.artifact.digest.removeprefix("sha256:")


def reference_to(result: TrainingResult) -> StoredReference:
    """The artifact as another plan's input."""
    assert result.artifact is not None
    return StoredReference(digest=result.artifact.digest, uri=result.artifact.uri)


def weights_of(store: Store, result: TrainingResult) -> dict[str, torch.Tensor]:
    """The artifact's weights."""
    (file,) = directory_of(store, result).glob("*.safetensors")
    weights: dict[str, torch.Tensor] = load_file(file)
    return weights


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The largest difference of two sets of weights."""
    assert left.keys() == right.keys()
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def evaluation_of(store: Store, run_key: str = "a1") -> Evaluation:
    """What was measured, row by row."""
    return Evaluation.model_validate_json((store.root / "runs" / run_key / "evaluation.json").read_text())


def score(result: TrainingResult, metric: str, system: str) -> float:
    """One figure of the evaluation."""
    (value,) = [each.value for each in result.evaluation if (each.metric, each.system) == (metric, system)]
    return value
