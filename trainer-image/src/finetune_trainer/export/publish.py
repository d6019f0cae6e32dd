"""The last stage: the artifact into the store, then the run's outcome, once for all attempts."""

import logging

from finetune_contract.base import Sha256
from finetune_contract.paths import RESULT_FILE, attempt_path, evaluation_path
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


def evaluation_folder(plan: TrainingPlan, artifact: Sha256) -> str:
    """Where what was measured of an artifact is kept: two pods of one run write to the same place only the same."""
    return evaluation_path(artifact, plan.evaluation_key or "latest")


def publish_outcome(store: Store, result: TrainingResult) -> TrainingResult:
    """Record the attempt, and say that the run has succeeded unless another pod said so first.

    Args:
        store: Where the run is recorded.
        result: Of this attempt, with its artifact and what was measured of it published.

    Returns:
        The result that holds: this one, or the other pod's, marked as reused.
    """
    store.record(result.run_key, attempt_path(result.attempt, RESULT_FILE), result.to_json())
    winner = store.publish_outcome(result)
    if winner != result:
        log.info("another pod of this run was first: its artifact is used")
        return winner.model_copy(update={"reused": True, "attempt": result.attempt})
    return result
