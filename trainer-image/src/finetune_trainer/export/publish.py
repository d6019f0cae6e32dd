"""The last stage: the artifact into the store, then the run's outcome, once for all attempts."""

import logging

from finetune_contract.paths import EVALUATION_FILE, RESULT_FILE
from finetune_contract.results import TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store

log = logging.getLogger(__name__)


def lineage_of(plan: TrainingPlan) -> dict[str, str]:
    """Where an artifact came from."""
    return {
        "runKey": plan.run_key,
        "base": plan.base.digest,
        "dataset": plan.dataset.digest,
        "method": plan.method.value,
        **({"adapter": plan.start.digest} if plan.start else {}),
    }


def attempt_folder(result: TrainingResult) -> str:
    """Where an attempt leaves what it has to say, in its run's directory."""
    return f"attempts/{result.attempt}"


def publish_outcome(store: Store, result: TrainingResult, evaluation: str) -> TrainingResult:
    """Record the attempt, and say that the run has succeeded unless another pod said so first.

    Args:
        store: Where the run is recorded.
        result: Of this attempt, with its artifact published.
        evaluation: The whole evaluation as JSON.

    Returns:
        The result that holds: this one, or the other pod's, marked as reused.
    """
    attempt = attempt_folder(result)
    store.record(result.run_key, f"{attempt}/{EVALUATION_FILE}", evaluation)
    store.record(result.run_key, f"{attempt}/{RESULT_FILE}", result.to_json())
    winner = store.publish_outcome(result)
    if winner != result:
        log.info("another pod of this run was first: its artifact is used")
        return winner.model_copy(update={"reused": True, "attempt": result.attempt})
    return result
