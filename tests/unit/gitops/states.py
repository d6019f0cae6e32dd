"""Resources in the states that people see them in, made by the operator's own decisions.

`python -m tests.unit.gitops.states` writes them as Argo CD's testdata, with health_test.yaml.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from finetune_contract.failure import FailureReason
from tests import factories
from tests.documents import ROOT
from tests.factories import Object, finished_job
from tests.unit.reconcile import batches, deployments, runs
from tests.unit.reconcile import test_canary as canaries
from tests.unit.reconcile import test_dataset as datasets
from tests.unit.reconcile import test_gates as gates
from tests.unit.reconcile.world import World

FOLDER = ROOT / "gitops/argocd/resource_customizations/finetune.dev"


class State(NamedTuple):
    """A resource, and what Argo CD should say of it."""

    name: str
    health: str
    make: Callable[[], World]


def _failed_dataset() -> World:
    here = datasets.world()
    datasets.fail(here, FailureReason.BAD_ROW)
    return here


def _untouched(resource: Object) -> Callable[[], World]:
    return lambda: World(resource)


def _edited_dataset() -> World:
    here = datasets.prepare(datasets.world())
    here.edit(prepare={"maxBadRows": 3})
    return here


def _failed_job() -> World:
    here = runs.staged()
    runs.fail(here, FailureReason.NON_FINITE_LOSS)
    return here


def _succeeded_job() -> World:
    here = runs.staged()
    runs.succeed(here)
    return here


def _suspended_job() -> World:
    here = runs.running(step=40)
    here.edit(suspend=True)
    here.settle()
    return here


def _serving(**spec: Any) -> World:
    return deployments.roll_out(deployments.world(finished_job(), **spec))


def _canary(errors: int) -> World:
    here = canaries.stable_world()
    canaries.new_run(here)
    canaries.catch_up(here)
    canaries.counts(here, 100, errors)
    return here


def _suspended_batch() -> World:
    here = batches.running()
    here.edit(suspend=True)
    here.settle()
    return here


PINNED = [{"name": "triage", "fineTuneJob": {"name": "triage"}, "digest": factories.digest("a")}]

STATES = {
    "Dataset": [
        State("new", "Progressing", _untouched(factories.make_dataset())),
        State("preparing", "Progressing", datasets.world),
        State("ready", "Healthy", lambda: datasets.prepare(datasets.world())),
        State("edited", "Progressing", _edited_dataset),
        State("bad-row", "Degraded", _failed_dataset),
    ],
    "FineTuneJob": [
        State("new", "Progressing", _untouched(factories.make_job())),
        State("training", "Progressing", lambda: runs.running(step=40)),
        State("suspended", "Suspended", _suspended_job),
        State("succeeded", "Healthy", _succeeded_job),
        State("failed", "Degraded", _failed_job),
        State("gate-failed", "Degraded", lambda: gates.gated(gates.HIGH)),
    ],
    "ModelDeployment": [
        State("new", "Progressing", _untouched(factories.make_deployment())),
        State("loading", "Progressing", lambda: deployments.world(finished_job())),
        State("waiting-for-artifact", "Progressing", lambda: deployments.world(factories.make_job())),
        State("serving", "Healthy", _serving),
        State("canary", "Progressing", lambda: _canary(errors=0)),
        State("rolled-back", "Degraded", lambda: _canary(errors=60)),
        State("pinned", "Healthy", lambda: _serving(adapters=PINNED)),
    ],
    "BatchInference": [
        State("new", "Progressing", _untouched(factories.make_batch())),
        State("waiting-for-model", "Progressing", lambda: batches.world(factories.ready_dataset())),
        State("answering", "Progressing", batches.running),
        State("suspended", "Suspended", _suspended_batch),
        State("succeeded", "Healthy", lambda: batches.succeed(batches.world(), failed=1)),
        State("failed", "Degraded", lambda: batches.fail(batches.world(), FailureReason.REQUESTS_FAILED)),
    ],
}


def resource(state: State) -> Object:
    """As Argo CD reads it."""
    return state.make().raw


def message(found: Object) -> str:
    """What Argo CD should show beside the health."""
    status = found.get("status") or {}
    if not status:
        return "Waiting for the operator"
    if status["observedGeneration"] != found["metadata"]["generation"]:
        return "Waiting for the operator to look at the edit"
    ready = next(item for item in status["conditions"] if item["type"] == "Ready")
    return f"{ready['reason']}: {ready['message']}" if ready.get("message") else str(ready["reason"])


def write(folder: Path) -> None:
    """Testdata and health_test.yaml of every kind."""
    for kind, states in STATES.items():
        tests = []
        for state in states:
            found = resource(state)
            path = Path("testdata") / f"{state.name}.yaml"
            (folder / kind / "testdata").mkdir(parents=True, exist_ok=True)
            (folder / kind / path).write_text(yaml.safe_dump(found, sort_keys=False, width=120))
            health = {"status": state.health, "message": message(found)}
            tests.append({"healthStatus": health, "inputPath": str(path)})
        text = yaml.safe_dump({"tests": tests}, sort_keys=False, width=120)
        (folder / kind / "health_test.yaml").write_text(text)


if __name__ == "__main__":
    write(FOLDER)
