"""Lives of a FineTuneJob in a queue of Kueue."""

from datetime import timedelta
from typing import Any

from finetune_contract.failure import FailureReason
from finetune_operator.reconcile.admission import Admission
from tests import factories
from tests.factories import Object, training_result
from tests.unit.reconcile.runs import KEY, staged, world
from tests.unit.reconcile.world import World

QUEUE: Object = {"queueName": "team", "queuePriority": "high"}

PENDING = Admission(
    workload="job-triage-1",
    reason="Pending",
    message="insufficient unused quota for nvidia.com/gpu",
    position=3,
    waiting=7,
)


def queued(says: Admission | None = PENDING, **scheduling: str) -> World:
    """A job whose first attempt waits in queue `team`."""
    here = staged(here=world(scheduling=scheduling or {"queueName": "team"}))
    if says:
        tell(here, says)
    return here


def tell(here: World, says: Admission) -> None:
    here.admissions[here.newest("train")["metadata"]["uid"]] = says
    here.settle()


def admit(here: World) -> Object:
    """Kueue lets the Job go on, and it has a new pod."""
    job = here.newest("train")
    job["spec"]["suspend"] = False
    here.admissions.clear()
    pod = here.pod(job)
    here.settle()
    return pod


def preempt(here: World, pod: Object, *, checkpoint: int | None, seconds: int = 40) -> None:
    """Kueue suspends the Job; its pod saves a checkpoint and is deleted."""
    here.newest("train")["spec"]["suspend"] = True
    here.settle()
    here.later(5)
    pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
    result = factories.failed_training(
        KEY, 1, FailureReason.PREEMPTED, step=checkpoint or 0, checkpoint_step=checkpoint
    )
    pod["status"] = factories.terminated(result.to_json(), code=78, now=here.now)
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    state["startedAt"] = factories.stamp(here.now - timedelta(seconds=seconds))
    here.settle()
    here.later(60)
    here.settle()


def succeed(here: World, pod: Object, **more: Any) -> None:
    """The newest pod runs to its end."""
    pod["status"] = factories.terminated(training_result(KEY, **more).to_json(), now=here.now)
    factories.ended(here.newest("train"), complete=True, now=here.now)
    here.settle()
