"""Lives of a FineTuneJob up to some point, and what may happen to an attempt there."""

from typing import Any

from finetune_contract.failure import FailureReason, policy_of
from finetune_contract.results import Phase, Progress
from tests import factories
from tests.factories import stage_result, training_result
from tests.unit.reconcile.world import World

KEY, OTHER = "1" * 64, "2" * 64


def world(**spec: Any) -> World:
    return World(factories.make_job(**spec), factories.ready_dataset())


def staged(key: str = KEY, here: World | None = None, **result: Any) -> World:
    """A job whose base is staged and whose first attempt was created."""
    here = here or world()
    here.settle()
    here.end(here.newest("stage"), stage_result(key, **result).to_json())
    here.settle()
    return here


def fail(here: World, reason: FailureReason, **more: Any) -> None:
    job = here.newest("train")
    number = int(job["metadata"]["labels"]["finetune.dev/attempt"])
    result = factories.failed_training(KEY, number, reason, **more)
    here.end(job, result.to_json(), code=policy_of(reason).exit_code or 1)
    here.settle()


def disrupt(here: World, checkpoint: int = 0) -> None:
    number = len(here.jobs("train"))
    here.progress = Progress(
        run_key=KEY,
        attempt=number,
        phase=Phase.TRAINING,
        step=checkpoint,
        checkpoint_step=checkpoint,
        updated_at=here.now,
    )
    here.pod(here.newest("train"))
    here.settle()
    here.progress = None
    here.end(here.newest("train"), status=factories.disrupted("DeletionByTaintManager"))
    here.later(60)
    here.settle()


def succeed(here: World, key: str = KEY, artifact: str = "a") -> None:
    job = here.newest("train")
    number = int(job["metadata"]["labels"]["finetune.dev/attempt"])
    here.end(job, training_result(key, number, artifact).to_json())
    here.settle()


def trainings(here: World) -> list[str]:
    """Training Jobs that were ever created."""
    return [name for name in here.created if name.startswith(("triage-111111", "triage-222222"))][::2]


def running(here: World | None = None, step: int = 0, **spec: Any) -> World:
    """A job whose first attempt runs."""
    here = staged(here=here or world(**spec))
    return run(here, step)


def run(here: World, step: int = 0) -> World:
    job = here.newest("train")
    here.pod(job)
    if step:
        here.progress = Progress(
            run_key=KEY,
            attempt=int(job["metadata"]["labels"]["finetune.dev/attempt"]),
            phase=Phase.TRAINING,
            step=step,
            total_steps=100,
            checkpoint_step=step,
            updated_at=here.now,
        )
    here.settle()
    return here
