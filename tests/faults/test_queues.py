"""Jobs that a queue holds back, lets go and takes the quota from again, with faults at each turn.

The part of Kueue is played by the test: what it does to a Job is to set and lift `spec.suspend`. The Job controller
does the rest, and so do the cluster tests with the real Kueue.
"""

from __future__ import annotations

from functools import partial

import pytest

from finetune_operator.manifests.naming import LABEL_ROLE
from tests.faults import actions, life
from tests.faults.api import Object
from tests.faults.laboratory import Case, Goldens, Laboratory
from tests.faults.plays import running_operator
from tests.faults.proxy import Rule, StreamRule
from tests.faults.stage import Stage

QUEUED = {"scheduling": {"queueName": "team-a"}}
FAULTS = ("none", "operator away", "crash after each status", "Job events lost", "Pod events lost", "watches silent")


def _job(stage: Stage) -> Object:
    found = [item for item in stage.history.of("Job") if item["metadata"]["labels"][LABEL_ROLE] == "train"]
    return found[-1] if found else {}


async def _suspend(stage: Stage, *, holds: bool) -> None:
    """As Kueue takes and gives quota; its patch starts the Job's clock anew, as Kueue's does."""
    name = _job(stage)["metadata"]["name"]
    await stage.edit("Job", name, {"spec": {"suspend": holds}})
    await stage.until(f"suspend: {holds} seen", lambda: _job(stage)["spec"]["suspend"] is holds)


async def _until_pods(stage: Stage, count: int) -> None:
    def are_there() -> bool:
        pods = [item for item in stage.history.of("Pod") if item["metadata"]["labels"].get(LABEL_ROLE) == "train"]
        return len(pods) == count

    await stage.until(f"{count} training pods", are_there)


def _inject(fault: str, stage: Stage) -> None:
    if fault == "crash after each status":
        is_status = lambda request: request.label.startswith("status FineTuneJob")  # noqa: E731
        stage.inject(Rule(is_status, actions.crash_after(stage.operator.kill), times=4))
    elif fault.endswith("events lost"):
        kind = fault.split(maxsplit=1)[0]
        stage.inject(StreamRule(lambda found, label: found == kind and "BOOKMARK" not in label, actions.drop, times=6))
    elif fault == "watches silent":
        stage.proxy.is_silent = True
    # What is not counted by a rule.
    stage.proxy.injected += fault in ("none", "operator away", "watches silent")


async def _preempted(fault: str, stage: Stage, _goldens: Goldens) -> None:
    """Admitted, preempted, admitted again: one Job, one success, no retry."""
    operator = await running_operator(stage)
    # It runs, waits and runs again because the queue says so.
    stage.moved = ("FineTuneJob",)
    held = stage.kubelet.hold("train-1")
    await stage.begin(**QUEUED)
    await stage.until("the Job in the queue", lambda: _job(stage))
    assert _job(stage)["spec"]["suspend"], "a Job in a queue begins suspended"
    uid = _job(stage)["metadata"]["uid"]
    await _suspend(stage, holds=False)
    await stage.until_said("FineTuneJob", life.JOB, "is running")
    _inject(fault, stage)
    if fault == "operator away":
        await operator.stop()
    await _suspend(stage, holds=True)
    await _until_pods(stage, 0)
    await _suspend(stage, holds=False)
    await _until_pods(stage, 1)
    if fault == "operator away":
        operator.start()
    held.set()
    await stage.until_done()
    stage.proxy.is_silent = False
    await stage.verdict(None)
    assert _job(stage)["metadata"]["uid"] == uid, "the Job keeps its place in the queue"
    status = stage.resource("FineTuneJob", life.JOB)["status"]
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Succeeded"]
    assert status["retriesUsed"] == 0


async def _deleted_in_queue(stage: Stage, _goldens: Goldens) -> None:
    """Somebody deletes the Job that waits in the queue: another one waits there, and no retry is counted."""
    await running_operator(stage)
    stage.moved = ("FineTuneJob",)
    await stage.begin(**QUEUED, retries={"limit": 0})
    first = await stage.until("the Job in the queue", lambda: _job(stage))
    await stage.api.delete("Job", stage.namespace, first["metadata"]["name"], propagationPolicy="Background")
    stage.proxy.injected += 1
    uid = first["metadata"]["uid"]
    await stage.until("another Job in the queue", lambda: _job(stage) and _job(stage)["metadata"]["uid"] != uid)
    assert _job(stage)["spec"]["suspend"]
    await _suspend(stage, holds=False)
    await stage.until_done()
    assert stage.resource("FineTuneJob", life.JOB)["status"]["retriesUsed"] == 0
    await stage.verdict(None)


CASES = [
    *(Case("queue", f"preempted: {fault}", partial(_preempted, fault)) for fault in FAULTS),
    Case("queue", "Job deleted while it waits", _deleted_in_queue),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_queue_costs_nothing_but_time(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)
