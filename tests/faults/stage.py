"""Where one case plays: a namespace, a node, operators behind their proxies, and the verdict at the end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from finetune_contract.failure import FailureReason
from tests.faults import invariants, life
from tests.faults.api import Api, History, Object, Recorder
from tests.faults.controlplane import ControlPlane
from tests.faults.kubelet import Kubelet
from tests.faults.process import Operator
from tests.faults.proxy import Proxy, Rule, StreamRule

SETTLED_SECONDS = 1.3
"""Without a request that writes: the operator has come to rest; longer than a Retry-After of a second."""
GONE_SECONDS = 90.0
PATIENCE = 90.0
"""Seconds for what takes a few on an idle machine: a loaded one is no fault."""
COMPLAINTS = ("Traceback", "failed, again in", "Task exception was never retrieved", "never awaited")
"""What an operator's log never says, whatever is injected."""


class Stage:
    """One case's own world on the shared control plane."""

    def __init__(self, control: ControlPlane, api: Api, recorder: Recorder, folder: Path) -> None:
        self.namespace = f"case-{secrets.token_hex(4)}"
        self.api = api
        self.history: History = recorder.histories[self.namespace]
        self.kubelet = Kubelet(api, self.history, self.namespace)
        self.operators: list[Operator] = []
        self.retired: list[Operator] = []
        """Operators that are gone for good; what they did still counts."""
        self.complaints_allowed: tuple[str, ...] = ()
        """What the operator may say in this case although it sounds bad."""
        self.exits_allowed = 0
        self.lease_is_short = False
        """A starved machine may cost a leader its lease; then it rightly ends, and comes back."""
        self.moved: tuple[str, ...] = ()
        """Kinds whose conditions come back to what they said because in this case the world does."""
        self._control = control
        self._folder = folder / self.namespace
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """A namespace, ready to take pods."""
        self._folder.mkdir(parents=True)
        await self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        async with asyncio.timeout(PATIENCE):
            while await self.api.get("ServiceAccount", self.namespace, "default") is None:
                await asyncio.sleep(0.05)
        self._tasks.append(asyncio.create_task(self.kubelet.run()))

    async def close(self) -> None:
        """End the operators and delete the namespace; it must go."""
        for operator in (*self.operators, *self.retired):
            await operator.stop()
            await operator.proxy.stop()
        await self.delete_namespace()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def delete_namespace(self) -> None:
        """Nothing of ours may keep a namespace from going."""
        await self.api.delete("Namespace", None, self.namespace)
        found = None
        try:
            async with asyncio.timeout(GONE_SECONDS):
                while found := await self.api.get("Namespace", None, self.namespace):
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise AssertionError(
                f"the namespace does not go: {(found or {}).get('status')}\n{self.history.picture()}"
            ) from None

    async def add_operator(self, name: str = "operator-0", **settings: str) -> Operator:
        """One more replica, with a proxy of its own; not started yet."""
        proxy = Proxy(self._control.server, self._control.connector)
        await proxy.start()
        self.operators.append(Operator(self._folder, proxy, self.namespace, name, **settings))
        return self.operators[-1]

    @property
    def operator(self) -> Operator:
        return self.operators[0]

    @property
    def proxy(self) -> Proxy:
        return self.operators[0].proxy

    # What people do

    async def apply(self, *items: Object) -> None:
        for item in items:
            await self.api.create(item)

    async def edit(self, kind: str, name: str, change: Object) -> None:
        await self.api.patch(kind, self.namespace, name, change)

    def resource(self, kind: str, name: str) -> Object:
        return self.history.get(kind, name)

    async def until(self, what: str, holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        try:
            return await self.history.until(what, holds, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    async def until_done(self, kind: str = "FineTuneJob", name: str = life.JOB, seconds: float = PATIENCE) -> None:
        """Until a resource is Ready for its present spec."""
        await self.until(f"{kind} {name} Ready", lambda: life.is_done(self.resource(kind, name)), seconds)

    async def until_injected(self, count: int) -> None:
        """Until so many faults were injected."""

        async def are_injected() -> bool:
            return self.injected >= count

        await self._poll(f"{count} faults injected", are_injected)

    async def _poll(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        """Until something is so that no history tells of; a failure says what it waited for, and what there was."""
        deadline = time.monotonic() + PATIENCE
        while not await holds():
            if time.monotonic() > deadline:
                found = f"{self.history.picture()}\n{self.logs()}"
                raise AssertionError(f"{what}: not within {PATIENCE:g} s\n{found}")
            await asyncio.sleep(0.05)

    def logs(self) -> str:
        """The last words of every operator."""
        return "\n".join(f"--- {operator.name}\n{operator.log()[-6000:]}" for operator in self.operators)

    # The lives

    async def train(self) -> None:
        """A Dataset and a FineTuneJob, to the artifact."""
        await self.begin()
        await self.until_done()

    async def begin(self, **spec: Any) -> None:
        """The FineTuneJob first, so that it has to wait for its Dataset, then that."""
        await self.apply(life.job(self.namespace, **spec))
        await self.until_said("FineTuneJob", life.JOB, "DatasetNotFound")
        await self.apply(life.dataset(self.namespace))

    async def until_said(self, kind: str, name: str, words: str, seconds: float = PATIENCE) -> None:
        """Until a resource's Ready condition has these words in its reason or message."""

        def is_said() -> bool:
            ready = life.condition(self.resource(kind, name), "Ready")
            return words in f"{ready.get('reason')}: {ready.get('message')}"

        await self.until(f"{kind} {name} says {words!r}", is_said, seconds)

    async def serve(self) -> None:
        """A ModelDeployment of that job, to a proven pod."""
        await self.apply(life.deployment(self.namespace))
        await self.until_done("ModelDeployment", life.DEPLOYMENT)

    async def answer(self) -> None:
        """A BatchInference of that job whose first pod is preempted; then an edit, and so another run."""
        self.kubelet.failures["batch-1"] = [FailureReason.PREEMPTED]
        await self.apply(life.batch(self.namespace))
        await self.until_done("BatchInference", life.BATCH)
        await self.edit("BatchInference", life.BATCH, life.LONGER)
        await self.until("the second batch", lambda: life.is_done(self.resource("BatchInference", life.BATCH), 2))

    async def train_again(self) -> None:
        """An edit of what decides the weights: another run, served in place of the first."""
        before = self.resource("ModelDeployment", life.DEPLOYMENT)["status"]["adapters"]
        await self.edit("FineTuneJob", life.JOB, life.EDIT)
        await self.until("the second run", lambda: life.is_done(self.resource("FineTuneJob", life.JOB), 2))

        def follows() -> bool:
            served = self.resource("ModelDeployment", life.DEPLOYMENT)
            return served["status"]["adapters"] != before and life.is_done(served)

        await self.until("the new adapter served", follows)
        # What the old plan and the old run left is deleted after the status was written.
        plans = [item for item in self.history.of("ConfigMap") if "-serve-" in item["metadata"]["name"]]
        await self.until("the old plan deleted", lambda: self._serving_plans() == 1 or not plans)

    def _serving_plans(self) -> int:
        return sum("-serve-" in item["metadata"]["name"] for item in self.history.of("ConfigMap"))

    async def whole_life(self) -> None:
        await self.train()
        await self.serve()
        await self.train_again()

    # The verdict

    @property
    def injected(self) -> int:
        """Faults so far: what the proxies did, and kills that came from elsewhere."""
        return sum(operator.proxy.injected for operator in (*self.operators, *self.retired))

    async def settle(self) -> None:
        """Until nothing is written any more, by operators that are at work again after whatever befell them."""
        deadline = time.monotonic() + PATIENCE
        while True:
            before = self._acts()
            await asyncio.sleep(SETTLED_SECONDS)
            if self._acts() == before and await self._are_at_work():
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"no rest within {PATIENCE:g} s: {self._acts()} after {before}\n{self.logs()}")

    def _acts(self) -> list[tuple[int, int]]:
        return [(operator.starts, len(operator.proxy.writes)) for operator in self.operators]

    async def _are_at_work(self) -> bool:
        """Whether all caches are filled, and every lease's holder has looked at everything.

        An operator that has just been started applies its children once more, as it does not know yet that they are
        as it would have them: on a loaded machine that comes seconds after the last write.
        """
        looks = [await operator.has_looked() for operator in self.operators]
        return all(look is not None for look in looks) and any(looks)

    async def verdict(self, expected: Object | None) -> None:
        """Fail with everything that is wrong."""
        await self.settle()
        wrong = invariants.broken(self.history, self.kubelet.store, self.moved)
        if expected is not None:
            wrong += await self._unlike(expected)
        wrong += await self._writes_without_need()
        for operator in self.operators:
            losses = operator.log().count("the lease was not renewed for") if self.lease_is_short else 0
            if len(operator.exits) > self.exits_allowed + losses:
                wrong.append(f"{operator.name} ended by itself: {operator.exits}")
            for complaint in COMPLAINTS:
                if complaint in operator.log() and complaint not in self.complaints_allowed:
                    wrong.append(f"{operator.name} says {complaint!r}")
        if wrong:
            raise AssertionError("\n".join(wrong) + "\n" + self.logs())

    async def _unlike(self, expected: Object) -> list[str]:
        """Differences from the fault-free run; what is only late gets a few seconds."""
        wrong: list[str] = []
        for _ in range(30):
            wrong = life.differences(expected, life.final_state(self.history.objects, self.namespace))
            if not wrong:
                return []
            await asyncio.sleep(0.2)
        return wrong

    async def _writes_without_need(self) -> list[str]:
        """Have everything looked at once more: a pass that finds all as it should be writes nothing."""
        before = [list(operator.proxy.writes) for operator in self.operators]
        passes = [await operator.passes() for operator in self.operators]
        touched = [
            item
            for kind in ("Dataset", "FineTuneJob", "ModelDeployment", "BatchInference")
            for item in self.history.of(kind)
        ]
        for item in touched:
            touch = {"metadata": {"annotations": {"example.com/touched": secrets.token_hex(4)}}}
            await self.edit(item["kind"], item["metadata"]["name"], touch)

        async def are_looked_at() -> bool:
            looks = [await operator.passes() for operator in self.operators]
            # A counter that fell is that of an operator which was started anew.
            since = [now - then if now >= then else now for now, then in zip(looks, passes, strict=True)]
            return any(count >= len(touched) for count in since)

        await self._poll("a look at what was touched", are_looked_at)
        await asyncio.sleep(SETTLED_SECONDS)
        return [
            f"{operator.name} wrote although nothing was to do: {operator.proxy.writes[len(known) :]}"
            for operator, known in zip(self.operators, before, strict=True)
            if len(operator.proxy.writes) > len(known)
        ]

    # Faults

    def inject(self, rule: Rule | StreamRule) -> None:
        for operator in self.operators:
            operator.proxy.inject(rule)
