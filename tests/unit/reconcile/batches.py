"""Lives of a BatchInference up to some point, and what its pods leave."""

from typing import Any

from finetune_contract.batching import BatchCounts, BatchPhase, BatchPlan, BatchProgress, BatchResult
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import Object, batch_result, finished_job, make_batch
from tests.unit.reconcile.world import World

JSONL = {"jsonl": {"inline": {"jsonl": "{}\n"}}}


def world(*others: Object, settings: Settings | None = None, **spec: Any) -> World:
    there = others or (finished_job(), factories.ready_dataset())
    here = World(make_batch(**spec), *there, settings=settings)
    here.settle()
    return here


def plan_of(here: World, at: int = -1) -> BatchPlan:
    plans = [item for item in here.made if item["kind"] == "ConfigMap"]
    return BatchPlan.model_validate_json(plans[at]["data"]["plan.json"])


def failed(reason: FailureReason, rows: int = 0, total: int = 10) -> BatchResult:
    counts = BatchCounts(rows=rows, succeeded=rows)
    return BatchResult(
        failure=Failure(reason=reason, message=f"it failed: {reason.value}"), total_rows=total, counts=counts
    )


def succeed(here: World, **more: Any) -> World:
    here.end(here.newest("batch"), batch_result(**more).to_json())
    here.settle()
    return here


def fail(here: World, reason: FailureReason, rows: int = 0) -> World:
    here.end(here.newest("batch"), failed(reason, rows).to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()
    return here


def running(here: World | None = None, rows: int = 4) -> World:
    here = here or world()
    here.pod(here.newest("batch"))
    here.progress_of_batch = BatchProgress(
        key=here.status["run"]["key"],
        phase=BatchPhase.ANSWERING,
        total_rows=10,
        counts=BatchCounts(rows=rows, succeeded=rows),
        percent=10 * rows,
        kept_rows=rows - 1,
        tokens_per_second=12.5,
        updated_at=here.now,
    )
    here.settle()
    return here
