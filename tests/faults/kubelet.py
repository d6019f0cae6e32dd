"""What a node does to pods: they start, run, and end with the result that the real pod would leave.

The pods themselves are made by Kubernetes' own Job and ReplicaSet controllers. The results are documents of the
contract, and a store remembers which runs have succeeded, as the real one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from finetune_contract.batching import BatchPlan, BatchResult
from finetune_contract.datasets import RowFormat
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import ResolveResult, TrainingResult
from finetune_contract.run import run_key
from finetune_contract.staging import ResolvePlan, StagePlan
from finetune_contract.training import TrainingPlan
from finetune_operator.manifests.naming import LABEL_ATTEMPT, LABEL_KIND, LABEL_NAME, LABEL_ROLE
from tests.factories import batch_result, dataset_result, digest, stage_result, training_result
from tests.faults.api import Api, History, Object, RefusedError
from tests.faults.proxy import part_of

PATIENCE = 3.0
"""Seconds that a patient node waits for the operator to have seen a pod's state."""


@dataclass
class Store:
    """What the claim `finetune-artifacts` would hold."""

    outcomes: dict[str, TrainingResult] = field(default_factory=dict)
    """Run key -> its success."""
    trainings: Counter[str] = field(default_factory=Counter)
    """Run key -> how often it was trained to a success."""
    answers: dict[str, BatchResult] = field(default_factory=dict)
    """Key of a batch's run -> its success."""
    answerings: Counter[str] = field(default_factory=Counter)
    """Key of a batch's run -> how often all of it was answered."""


class Kubelet:
    """Plays the node of one namespace."""

    def __init__(self, api: Api, history: History, namespace: str) -> None:
        self._api = api
        self._history = history
        self._namespace = namespace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.store = Store()
        self.is_patient = True
        self.failures: dict[str, list[FailureReason]] = {}
        """Part (`train-1`) -> how its pods fail, one after another."""
        self.holds: dict[str, asyncio.Event] = {}
        """Part -> when its pod may end."""

    def hold(self, part: str) -> asyncio.Event:
        """Keep the pod of a part running until the event is set."""
        return self.holds.setdefault(part, asyncio.Event())

    async def run(self) -> None:
        """For ever."""
        seen = 0
        try:
            while True:
                await self._history.until("", lambda: len(self._history.changes) > seen, 3600)  # noqa: B023 - not kept
                changes, seen = self._history.changes[seen:], len(self._history.changes)
                for change in changes:
                    uid = change.item["metadata"]["uid"]
                    if change.kind == "Pod" and change.type == "ADDED":
                        self._tasks[uid] = asyncio.create_task(self._live(change.item))
                    elif change.kind == "Pod" and _is_going(change.item) and uid in self._tasks:
                        self._tasks.pop(uid).cancel()
                        self._tasks[f"end of {uid}"] = asyncio.create_task(self._end(change.item))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _live(self, pod: Object) -> None:
        with contextlib.suppress(RefusedError):
            role = pod["metadata"]["labels"].get(LABEL_ROLE)
            if role == "serve":
                await self._set(pod, {**_running(), "conditions": [{"type": "Ready", "status": "True"}]})
                return
            await self._seen(pod, "PodStarting")
            await self._start(pod)
            await self._seen(pod, "")
            part = part_of(pod)
            if part in self.holds:
                await self.holds[part].wait()
            reasons = self.failures.get(part)
            if reasons:
                await self._set(pod, _terminated("died", policy_of(reasons.pop(0)).exit_code or 1))
            else:
                await self._set(pod, _terminated(await self._result(pod)))

    async def _end(self, pod: Object) -> None:
        """SIGTERM: a running container ends without a result."""
        with contextlib.suppress(RefusedError):
            if (pod.get("status") or {}).get("phase") == "Running":
                await self._set(pod, _terminated("", 143))

    async def _start(self, pod: Object) -> None:
        """A container needs the Secrets that it names."""
        while missing := await self._missing_secret(pod):
            waiting = {"reason": "CreateContainerConfigError", "message": f'secret "{missing}" not found'}
            await self._set(pod, {"phase": "Pending", "containerStatuses": [_container({"waiting": waiting})]})
            await asyncio.sleep(0.3)
        await self._set(pod, _running())

    async def _missing_secret(self, pod: Object) -> str | None:
        for container in pod["spec"]["containers"]:
            for variable in container.get("env") or ():
                name = ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
                if name and await self._api.get("Secret", self._namespace, name) is None:
                    return str(name)
        return None

    async def _seen(self, pod: Object, detail: str) -> None:
        """Until the status of the pod's owner tells of its state; patient nodes make every run the same."""
        labels = pod["metadata"]["labels"]
        if not self.is_patient:
            return

        def tells() -> bool:
            status = self._history.get(labels[LABEL_KIND], labels[LABEL_NAME]).get("status") or {}
            ready: Object = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
            said = f"{ready.get('reason')} {ready.get('message')}"
            return detail in said if detail else "Pod" not in said

        with contextlib.suppress(AssertionError):
            await self._history.until("", tells, PATIENCE)

    async def _set(self, pod: Object, status: Object) -> None:
        await self._api.patch("Pod", self._namespace, pod["metadata"]["name"], {"status": status}, "status")

    async def _result(self, pod: Object) -> str:
        plan = await self._plan(pod)
        role = pod["metadata"]["labels"][LABEL_ROLE]
        if role == "prepare":
            return dataset_result(format=RowFormat.MESSAGES).to_json()
        if role == "stage":
            return self._staged(StagePlan.model_validate_json(plan))
        if role == "resolve":
            run = ResolvePlan.model_validate_json(plan).run_key
            return ResolveResult(outcome=self.store.outcomes.get(run)).to_json()
        if role == "batch":
            return self._answered(BatchPlan.model_validate_json(plan))
        return self._trained(TrainingPlan.model_validate_json(plan), int(pod["metadata"]["labels"][LABEL_ATTEMPT]))

    async def _plan(self, pod: Object) -> str:
        names = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume]
        found = await self._api.get("ConfigMap", self._namespace, names[0])
        assert found is not None, f"the plan {names[0]} is gone while its pod runs"
        return str(found["data"]["plan.json"])

    def _staged(self, plan: StagePlan) -> str:
        if plan.run is None:
            return stage_result(None).to_json()
        key = run_key(plan.run.train_fields, plan.run.dataset, digest("b"))
        return stage_result(key, outcome=self.store.outcomes.get(key)).to_json()

    def _trained(self, plan: TrainingPlan, attempt: int) -> str:
        """As the trainer does: a run that has succeeded before is not trained again."""
        known = self.store.outcomes.get(plan.run_key)
        if known is not None:
            return known.model_copy(update={"attempt": attempt, "reused": True}).to_json()
        letter = "a" if not self.store.outcomes else "e"
        result = training_result(plan.run_key, attempt, artifact=letter)
        self.store.outcomes[plan.run_key] = result
        self.store.trainings[plan.run_key] += 1
        return result.to_json()

    def _answered(self, plan: BatchPlan) -> str:
        """As the pod does: what was answered is not answered again."""
        known = self.store.answers.get(plan.key)
        if known is not None:
            return known.model_copy(update={"reused": True}).to_json()
        result = batch_result(letter="f" if not self.store.answers else "c")
        self.store.answers[plan.key] = result
        self.store.answerings[plan.key] += 1
        return result.to_json()


def _is_going(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _container(state: Object) -> Object:
    ready = "running" in state
    return {"name": "main", "state": state, "ready": ready, "restartCount": 0, "image": "image", "imageID": "image"}


def _running() -> Object:
    return {"phase": "Running", "containerStatuses": [_container({"running": {"startedAt": _stamp()}})]}


def _terminated(message: str, code: int = 0) -> Object:
    now = _stamp()
    state = {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}
    state |= {"startedAt": now, "finishedAt": now}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [_container({"terminated": state})]}


def failed_result(plan: str, reason: FailureReason) -> str:
    """A trainer that says itself why it failed."""
    document = json.loads(plan)
    failure = Failure(reason=reason, message="the trainer gave up")
    return TrainingResult(run_key=document["run_key"], attempt=document["attempt"], failure=failure).to_json()


Predicate = Callable[[], bool]
