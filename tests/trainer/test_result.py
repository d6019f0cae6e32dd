from datetime import UTC, datetime

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.evaluating import Metric, Score
from finetune_contract.failure import Failure, FailureReason
from finetune_contract.paths import TERMINATION_LIMIT
from finetune_contract.results import Artifact, ArtifactType, Phase, Progress, Timing, TrainingResult
from finetune_trainer.stop import Stop
from finetune_trainer.train.failures import named
from finetune_trainer.train.result import failed_result, fitted

REFERENCE = StoredReference(digest="sha256:" + "0" * 64, uri="pvc://claim/" + "x" * 200)
ARTIFACT = Artifact(digest=REFERENCE.digest, uri=REFERENCE.uri, type=ArtifactType.MODEL, bytes=1, base=REFERENCE)


@pytest.mark.parametrize("character", ["a", "ä", "\n", "\x01", "🙂"], ids=repr)
def test_a_failure_fits_the_termination_message(character: str) -> None:
    failure = Failure(reason=FailureReason.TRAINER_CRASHED, message=character * 1024)
    result = fitted(TrainingResult(run_key="a1", attempt=1, failure=failure))
    text = result.to_message()
    assert len(text) <= TERMINATION_LIMIT
    again = TrainingResult.from_message(text.decode())
    assert again.failure is not None
    assert again.failure.message.startswith(character * 100)


def test_the_largest_success_fits_whole() -> None:
    scores = [
        Score(metric=metric, system=system, value=-123.456789, low=-123.456789, high=-123.456789, rows=10**6)
        for metric in Metric
        for system in ("Tuned", "ZeroShot", "FewShot", "Previous")
    ]
    timings = [Timing(stage=s, seconds=99999.999) for s in ("Loading", "FirstStep", "Training", "Evaluating")]
    result = TrainingResult(
        run_key="f" * 64, attempt=99, artifact=ARTIFACT, evaluation=tuple(scores), timings=tuple(timings)
    )
    assert fitted(result) == result


def test_a_failure_says_how_far_the_run_was() -> None:
    progress = Progress(
        run_key="a1", attempt=3, phase=Phase.TRAINING, step=7, total_steps=9, resumed_from_step=4, checkpoint_step=6,
        updated_at=datetime.now(UTC),
    )  # fmt: skip
    result = failed_result(Failure(reason=FailureReason.PREEMPTED, message="bye"), progress)
    assert (result.run_key, result.attempt, result.step, result.total_steps) == ("a1", 3, 7, 9)
    assert (result.resumed_from_step, result.checkpoint_step) == (4, 6)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureReason.GPU_OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FailureReason.HOST_OUT_OF_MEMORY),
        (RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed"), FailureReason.STORAGE_FULL),
        (ZeroDivisionError("division by zero"), FailureReason.TRAINER_CRASHED),
    ],
    ids=str,
)
def test_library_errors_get_their_names(error: Exception, reason: FailureReason) -> None:
    from finetune_contract.failure import FineTuneError

    with pytest.raises(FineTuneError) as caught, named(Stop()):
        raise error
    assert caught.value.reason is reason
    assert str(caught.value).endswith(f"{type(error).__name__}: {error}")
    assert "test_result.py" in str(caught.value), "the traceback says where"
