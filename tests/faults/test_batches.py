"""Batches are paused, edited, deleted and lost at the worst moments: no run is answered twice, and none by two pods."""

from __future__ import annotations

from functools import partial

import pytest

from finetune_contract.failure import FailureReason
from finetune_operator.manifests.naming import LABEL_ROLE
from tests.faults import actions, life
from tests.faults.actions import meanwhile
from tests.faults.api import Object
from tests.faults.laboratory import Case, Goldens, Laboratory
from tests.faults.plays import labelled, running_operator
from tests.faults.proxy import Rule
from tests.faults.stage import Stage


def _status(stage: Stage) -> Object:
    return dict(stage.resource("BatchInference", life.BATCH).get("status") or {})


async def _edit(stage: Stage, **spec: object) -> None:
    await stage.edit("BatchInference", life.BATCH, {"spec": spec})


async def _done(stage: Stage, answered: int = 1) -> list[str]:
    """To the end and the verdict; answers how the attempts ended."""
    await stage.until_done("BatchInference", life.BATCH)
    await stage.verdict(None)
    status = _status(stage)
    assert status["output"]["run"] == status["run"]["key"]
    assert sum(stage.kubelet.store.answerings.values()) == answered
    return [attempt["reason"] for attempt in status["attempts"]]


async def _until_running(stage: Stage) -> None:
    """A trained model, and a batch whose pod runs until it is let go."""
    await stage.train()
    await stage.apply(life.batch(stage.namespace))
    await stage.until_said("BatchInference", life.BATCH, "is running")


PAUSED_AT = ("status BatchInference Suspended", "delete Job", "delete ConfigMap")


async def _paused(label: str, moment: str, stage: Stage, _goldens: Goldens) -> None:
    """It is paused while its pod runs, and the operator dies at it; then it goes on."""
    operator = await running_operator(stage)
    held = stage.kubelet.hold("batch-1")
    await _until_running(stage)
    crash = actions.crash_before if moment == "before" else actions.crash_after
    stage.inject(Rule(labelled(label), crash(operator.kill)))
    await _edit(stage, suspend=True)
    await stage.until_injected(1)
    await stage.until("it is paused", lambda: _status(stage)["phase"] == "Suspended")
    held.set()
    await _edit(stage, suspend=False)
    assert await _done(stage) == ["Suspended", "Succeeded"]


async def _resumed_while_down(stage: Stage, _goldens: Goldens) -> None:
    """The operator died between writing that it has paused and stopping the pod; then the pause was called off."""
    operator = await running_operator(stage)
    stage.kubelet.hold("batch-1")
    await _until_running(stage)
    stage.inject(Rule(labelled("status BatchInference Suspended"), actions.crash_after(operator.put_down)))
    await _edit(stage, suspend=True)
    await stage.until_injected(1)
    await _edit(stage, suspend=False)
    await operator.stop()
    operator.start()
    assert await _done(stage) == ["Suspended", "Succeeded"]


EDITED_AT = (
    "create ConfigMap batch-1", "create Job batch-1", "status BatchInference Starting",
    "status BatchInference Starting PodStarting", "status BatchInference Starting Answering",
    "status BatchInference Succeeded",
)  # fmt: skip


async def _edited(label: str, stage: Stage, _goldens: Goldens) -> None:
    """What is asked changes between a pass's look and its write."""
    await running_operator(stage)
    await stage.train()
    deed = partial(stage.edit, "BatchInference", life.BATCH, life.LONGER)
    stage.inject(Rule(labelled(label), meanwhile(deed)))
    await stage.apply(life.batch(stage.namespace))
    await stage.until_injected(1)
    await stage.until("the edited batch Ready", lambda: life.is_done(stage.resource("BatchInference", life.BATCH), 2))
    await stage.verdict(None)
    plans = [item["data"]["plan.json"] for item in stage.history.of("ConfigMap") if "batch" in str(item["metadata"])]
    assert len(plans) == 1, "plans of another run are gone"
    assert '"maxTokens":32' in plans[0].replace(" ", "")
    assert _status(stage)["output"]["run"] == _status(stage)["run"]["key"]


async def _recreated(label: str, stage: Stage, _goldens: Goldens) -> None:
    """It is deleted during a write, and applied again: what was answered for the first one is the second one's, too."""
    await running_operator(stage)
    await stage.train()

    async def replace() -> None:
        await stage.api.delete("BatchInference", stage.namespace, life.BATCH)
        await stage.apply(life.batch(stage.namespace))

    stage.inject(Rule(labelled(label), meanwhile(replace)))
    await stage.apply(life.batch(stage.namespace))
    await stage.until_injected(1)
    await _done(stage)


async def _result_lost_while_away(what: str, stage: Stage, _goldens: Goldens) -> None:
    """The pod succeeded, and it or its Job was deleted, while the operator was down: the next pod finds the answers."""
    operator = await running_operator(stage)
    # Nobody knows until another pod has looked: the batch is back where it was, and then done.
    stage.moved = ("BatchInference",)
    held = stage.kubelet.hold("batch-1")
    await _until_running(stage)
    await operator.stop()
    stage.proxy.injected += 1
    held.set()

    def ended() -> bool:
        jobs = [item for item in stage.history.of("Job") if item["metadata"]["labels"][LABEL_ROLE] == "batch"]
        return any(life.condition(item, "Complete").get("status") == "True" for item in jobs)

    await stage.until("the batch's Job ended", ended)
    victim = next(item for item in stage.history.of(what) if item["metadata"]["labels"][LABEL_ROLE] == "batch")
    name = victim["metadata"]["name"]
    await stage.api.delete(what, stage.namespace, name, propagationPolicy="Background")
    await stage.until("it is gone", lambda: not stage.history.get(what, name))
    operator.start()
    assert (await _done(stage))[-1] == "Succeeded"
    assert _status(stage)["output"]["reused"]


async def _before_its_job(stage: Stage, _goldens: Goldens) -> None:
    """It is there before the job whose artifact it asks, and waits."""
    await running_operator(stage)
    stage.proxy.injected += 1
    await stage.apply(life.batch(stage.namespace))
    await stage.until_said("BatchInference", life.BATCH, "triage")
    await stage.train()
    assert await _done(stage) == ["Succeeded"]


async def _failing(stage: Stage, _goldens: Goldens) -> None:
    """It fails until no retry is left; an edit that asks nothing anew lets it go on."""
    await running_operator(stage)
    stage.kubelet.failures = {f"batch-{number}": [FailureReason.STORAGE_UNAVAILABLE] for number in (1, 2, 3)}
    stage.proxy.injected += 1
    await stage.train()
    await stage.apply(life.batch(stage.namespace))
    await stage.until("it has failed", lambda: _status(stage).get("phase") == "Failed")
    assert not stage.kubelet.store.answerings
    await _edit(stage, retries={"limit": 3})
    assert await _done(stage) == [FailureReason.STORAGE_UNAVAILABLE.value] * 3 + ["Succeeded"]


async def _hasty(stage: Stage, goldens: Goldens) -> None:
    """Pods that end before anybody could look."""
    await running_operator(stage)
    stage.kubelet.is_patient = False
    stage.proxy.injected += 1
    await stage.train()
    await stage.answer()
    await stage.verdict(goldens.answered)


CASES = [
    *(
        Case(f"crash {moment} a pause", label, partial(_paused, label, moment))
        for label in PAUSED_AT
        for moment in ("before", "after")
    ),
    Case("crash after a pause", "resumed while down", _resumed_while_down),
    *(Case("batch edited", label, partial(_edited, label)) for label in EDITED_AT),
    *(Case("batch recreated", label, partial(_recreated, label)) for label in EDITED_AT),
    *(
        Case("batch lost", f"{what} deleted with its result", partial(_result_lost_while_away, what))
        for what in ("Pod", "Job")
    ),
    Case("batch waits", "for its job", _before_its_job),
    Case("batch pods", "failing", _failing),
    Case("batch pods", "hasty", _hasty),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_batch_is_answered_once(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)
