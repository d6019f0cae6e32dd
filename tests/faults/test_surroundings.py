"""What is there late, what refuses, what goes while the operator is away; and pods that do not wait."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from finetune_contract.failure import FailureReason
from finetune_operator.manifests.naming import LABEL_ROLE
from tests.faults import actions, life
from tests.faults.laboratory import Case, Goldens, Laboratory
from tests.faults.plays import labelled, running_operator, starting
from tests.faults.proxy import Rule
from tests.faults.stage import Stage

# --- what is there late, and what refuses


async def _secret_late(stage: Stage, _goldens: Goldens) -> None:
    stage.moved = ("FineTuneJob",)  # the missing Secret is the reason as long as it is missing
    await running_operator(stage)
    base = {"huggingFace": {"repo": "org/model", "tokenSecretRef": {"name": "hf", "key": "token"}}}
    await stage.begin(baseModel=base)
    await stage.until_said("FineTuneJob", life.JOB, 'secret "hf" not found')
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf", "namespace": stage.namespace}}
    await stage.apply({**secret, "stringData": {"token": "x"}})
    stage.proxy.injected += 1
    await stage.until_done()
    await stage.api.delete("Secret", stage.namespace, "hf")
    await stage.verdict(None)
    assert sum(stage.kubelet.store.trainings.values()) == 1


async def _quota(resource: str, stage: Stage, goldens: Goldens) -> None:
    """The API server's own quota refuses, is told in its own words, and is lifted."""
    await running_operator(stage)
    metadata = {"name": "tight", "namespace": stage.namespace}
    hard = {resource: "0"}
    await stage.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}})

    async def is_counted() -> bool:
        found = await stage.api.get("ResourceQuota", stage.namespace, "tight")
        return bool((found or {}).get("status", {}).get("hard") == hard)

    async with asyncio.timeout(20):
        while not await is_counted():
            await asyncio.sleep(0.05)
    await stage.begin()
    await stage.until_said("Dataset", life.DATASET, FailureReason.QUOTA_EXCEEDED.value)
    stage.proxy.injected += 1
    await stage.api.delete("ResourceQuota", stage.namespace, "tight")
    await stage.until_done()
    await stage.verdict(goldens.trained)


async def _policy(stage: Stage, goldens: Goldens) -> None:
    """Pod Security refuses the training Job, is told, and relents."""
    await running_operator(stage)
    words = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    stage.inject(Rule(starting("create Job train"), actions.answer(403, words), times=5))
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, "PodSecurityDenied")
    await stage.until_done()
    await stage.verdict(goldens.trained)


async def _namespace_going(words: str, lease_in: str, stage: Stage, _goldens: Goldens) -> None:
    """The operator goes on watching a namespace that is deleted: it neither keeps it nor dies of it."""
    operator = await running_operator(stage, POD_NAMESPACE=lease_in)
    stage.kubelet.hold("train-1")
    stage.kubelet.hold("serve")
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, words)
    before = len(stage.proxy.writes)
    stage.proxy.injected += 1
    await stage.delete_namespace()
    await asyncio.sleep(1)
    assert await operator.probe("/livez") == 200
    assert not operator.exits
    assert len(stage.proxy.writes) - before < 60, "writes into a namespace that goes: " + str(
        stage.proxy.writes[before:]
    )
    assert "failed, again in" not in operator.log(), operator.log()[-3000:]


# --- while the operator is away


async def _all_while_away(stage: Stage, goldens: Goldens) -> None:
    """The pod ends while the operator is down; its result is there when it comes back."""
    operator = await running_operator(stage)
    held = stage.kubelet.hold("train-1")
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, "is running")
    await operator.stop()
    stage.proxy.injected += 1
    held.set()
    await _train_job_ended(stage)
    operator.start()
    await stage.until_done()
    await stage.verdict(goldens.trained)


async def _resumed_while_down(stage: Stage, _goldens: Goldens) -> None:
    """The operator died between writing that a job has paused and stopping its pod; then the pause was called off."""
    operator = await running_operator(stage)
    stage.kubelet.hold("train-1")
    await stage.begin()
    await stage.until_said("FineTuneJob", life.JOB, "is running")
    stage.inject(Rule(labelled("status FineTuneJob Suspended"), actions.crash_after(operator.put_down)))
    await stage.edit("FineTuneJob", life.JOB, {"spec": {"suspend": True}})
    await stage.until_injected(1)
    await stage.edit("FineTuneJob", life.JOB, {"spec": {"suspend": False}})
    await operator.stop()
    operator.start()
    await stage.until_done()
    await stage.verdict(None)
    reasons = [attempt["reason"] for attempt in stage.resource("FineTuneJob", life.JOB)["status"]["attempts"]]
    assert reasons == ["Suspended", "Succeeded"]


async def _result_lost_while_away(what: str, limit: int, stage: Stage, _goldens: Goldens) -> None:
    """The pod succeeded, and it and its result were deleted, while the operator was down: nothing is trained twice."""
    operator = await running_operator(stage)
    # Nobody knows until the store was asked: the job is back where it was, and then done.
    stage.moved = ("FineTuneJob",)
    held = stage.kubelet.hold("train-1")
    await stage.begin(retries={"limit": limit})
    await stage.until_said("FineTuneJob", life.JOB, "is running")
    await operator.stop()
    stage.proxy.injected += 1
    held.set()
    await _train_job_ended(stage)
    victim = next(item for item in stage.history.of(what) if item["metadata"]["labels"][LABEL_ROLE] == "train")
    name = victim["metadata"]["name"]
    await stage.api.delete(what, stage.namespace, name, propagationPolicy="Background")
    await stage.until("it is gone", lambda: not stage.history.get(what, name))
    operator.start()
    await stage.until_done()
    await stage.verdict(None)
    assert sum(stage.kubelet.store.trainings.values()) == 1
    status = stage.resource("FineTuneJob", life.JOB)["status"]
    assert [record["outcome"] for record in status["runs"]] == ["Succeeded"]
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Succeeded"]


async def _train_job_ended(stage: Stage) -> None:
    def ended() -> bool:
        jobs = [item for item in stage.history.of("Job") if item["metadata"]["labels"][LABEL_ROLE] == "train"]
        return any(life.condition(item, "Complete").get("status") == "True" for item in jobs)

    await stage.until("the training Job ended", ended)


async def _hasty(stage: Stage, goldens: Goldens) -> None:
    """Pods that end before anybody could look."""
    await running_operator(stage)
    stage.kubelet.is_patient = False
    stage.proxy.injected += 1
    await stage.train()
    await stage.verdict(goldens.trained)


async def _failing(reasons: tuple[FailureReason, ...], stage: Stage, _goldens: Goldens) -> None:
    """Attempts fail one after another; each is one Job, told once."""
    await running_operator(stage)
    for number, reason in enumerate(reasons, 1):
        stage.kubelet.failures[f"train-{number}"] = [reason]
    stage.proxy.injected += len(reasons)
    await stage.train()
    attempts = stage.resource("FineTuneJob", life.JOB)["status"]["attempts"]
    assert [attempt["reason"] for attempt in attempts] == [*(reason.value for reason in reasons), "Succeeded"]
    await stage.verdict(None)


CASES = [
    Case("late", "Secret", _secret_late),
    *(Case("refused", resource, partial(_quota, resource)) for resource in ("count/jobs.batch", "count/configmaps")),
    Case("refused", "Pod Security", _policy),
    # Each with a lease elsewhere, where no other case has its own.
    Case("namespace going", "while preparing", partial(_namespace_going, "DatasetNotReady", "kube-public")),
    Case("namespace going", "while training", partial(_namespace_going, "is running", "kube-node-lease")),
    Case("operator away", "while the pod ends", _all_while_away),
    Case("operator away", "between a pause and its end", _resumed_while_down),
    *(
        Case(
            "operator away",
            f"{what} deleted with its result, {limit} retries",
            partial(_result_lost_while_away, what, limit),
        )
        for what in ("Pod", "Job")
        for limit in (0, 2)
    ),
    Case("pods", "hasty", _hasty),
    Case("pods", "evicted, killed", partial(_failing, (FailureReason.TRAINER_CRASHED, FailureReason.TRAINER_CRASHED))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_surrounds_a_run_may_fail(case: Case, laboratory: Laboratory) -> None:
    laboratory.outcome(case)
