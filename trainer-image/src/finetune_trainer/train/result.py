"""TrainingResults: of a failure, and cut to what a termination message holds."""

from finetune_contract.failure import Failure
from finetune_contract.paths import TERMINATION_LIMIT
from finetune_contract.results import Progress, TrainingResult

_UNKNOWN_RUN = "unknown"


def failed_result(failure: Failure, progress: Progress | None) -> TrainingResult:
    """What a pod leaves that did not succeed; `progress` is None when not even its plan could be read."""
    if progress is None:
        return TrainingResult(run_key=_UNKNOWN_RUN, attempt=0, failure=failure)
    return TrainingResult(
        run_key=progress.run_key,
        attempt=progress.attempt,
        step=progress.step,
        total_steps=progress.total_steps,
        resumed_from_step=progress.resumed_from_step,
        checkpoint_step=progress.checkpoint_step,
        train_loss=progress.loss,
        micro_batch_size=progress.micro_batch_size,
        peak_memory_bytes=progress.peak_memory_bytes,
        warnings=progress.warnings,
        tracking=progress.tracking,
        failure=failure,
    )


def fitted(result: TrainingResult) -> TrainingResult:
    """The result with its message cut so that its JSON is at most 4,096 bytes; longer ones arrive broken."""
    while _size(result) > TERMINATION_LIMIT and result.failure is not None and result.failure.message:
        message = result.failure.message[: len(result.failure.message) // 2]
        result = result.model_copy(update={"failure": result.failure.model_copy(update={"message": message})})
    if _size(result) > TERMINATION_LIMIT:
        result = result.model_copy(update={"timings": ()})
    return result


def _size(result: TrainingResult) -> int:
    return len(result.to_message())
