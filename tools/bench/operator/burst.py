"""Many FineTuneJobs at once: by the operator, and the same writes by a bare client."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.kinds import KINDS
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.settings import Settings
from tools.bench.operator import fakes
from tools.bench.operator.api import Api, Object, path
from tools.console import StepError, say

CLIENTS = 16
"""Requests of the applying client under way at a time."""
PATIENCE = 600.0
_NAME = re.compile(rb'"finetune\.dev/name":"([^"]+)"')
_ROLE = re.compile(rb'"finetune\.dev/role":"([^"]+)"')
_OWN_NAME = re.compile(rb'"metadata":\{.*?"name":"([^"]+)"')
_UID = "00000000-0000-0000-0000-000000000000"
"""Stands for the uid that the API server will choose."""


@dataclass
class Sightings:
    """When the bench's own watches saw things, by job; seconds of the monotonic clock."""

    applied: dict[str, float] = field(default_factory=dict)
    jobs: dict[str, float] = field(default_factory=dict)
    """The first Job."""
    training_jobs: dict[str, float] = field(default_factory=dict)
    pods_finished: dict[str, float] = field(default_factory=dict)
    """The training pod."""
    succeeded: dict[str, float] = field(default_factory=dict)
    """The FineTuneJob's status says so."""

    def see_job(self, line: bytes) -> None:
        """A line of the watch of Jobs."""
        if line.startswith(b'{"type":"ADDED"') and (name := _NAME.search(line)):
            self.jobs.setdefault(name[1].decode(), time.monotonic())
            if (role := _ROLE.search(line)) and role[1] == b"train":
                self.training_jobs.setdefault(name[1].decode(), time.monotonic())

    def see_pod(self, line: bytes) -> None:
        """A line of the watch of Pods."""
        if b'"phase":"Succeeded"' in line and (role := _ROLE.search(line)) and role[1] == b"train":
            name = _NAME.search(line)
            assert name is not None
            self.pods_finished.setdefault(name[1].decode(), time.monotonic())

    def see_resource(self, line: bytes) -> None:
        """A line of the watch of FineTuneJobs."""
        if b'"phase":"Succeeded"' in line and (name := _OWN_NAME.search(line)):
            self.succeeded.setdefault(name[1].decode(), time.monotonic())

    def since_applied(self, seen: dict[str, float]) -> list[float]:
        """Seconds from the request that applied a job."""
        return [when - self.applied[name] for name, when in seen.items() if name in self.applied]


class Watching:
    """`async with Watching(api, namespace) as sightings:` watches Jobs, Pods and FineTuneJobs."""

    def __init__(self, api: Api, namespace: str) -> None:
        """Watches from the moment it is entered."""
        self._api = api
        self._namespace = namespace

    async def __aenter__(self) -> Sightings:
        sightings = Sightings()
        see = {"Job": sightings.see_job, "Pod": sightings.see_pod, "FineTuneJob": sightings.see_resource}
        self._tasks = [asyncio.create_task(self._follow(kind, look)) for kind, look in see.items()]
        # The watches are open before anything happens.
        await asyncio.sleep(0.5)
        return sightings

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, kind: str, see: Callable[[bytes], None]) -> None:
        async for line in self._api.watch(kind, self._namespace):
            see(line)


async def until_all(what: str, seen: dict[str, float], count: int) -> None:
    """Wait until so many were seen."""
    deadline = time.monotonic() + PATIENCE
    said = time.monotonic()
    while len(seen) < count:
        await asyncio.sleep(0.05)
        if time.monotonic() > deadline:
            raise StepError(f"{what}: {len(seen)} of {count} after {PATIENCE:.0f} s")
        if time.monotonic() > said + 8:
            said = time.monotonic()
            say(f"  ... {what}: {len(seen)} of {count}")


async def in_parallel(count: int, work: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Call `work` for each number, CLIENTS at a time."""
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await work(number)

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())


async def apply(api: Api, namespace: str, sightings: Sightings, count: int) -> None:
    """Create the jobs as fast as the API server takes them."""

    async def one(number: int) -> None:
        item = fakes.job(number)
        sightings.applied[item["metadata"]["name"]] = time.monotonic()
        await api.create(item, namespace)

    await in_parallel(count, one)


@dataclass(frozen=True)
class Script:
    """What is written for one job until it has its Job: the operator's own manifests, made beforehand."""

    name: str
    resource: bytes
    children: tuple[tuple[str, bytes], ...]
    status: bytes


def script(number: int, namespace: str, dataset: Object, claim: Object) -> Script:
    """Ask the pure reconcile, so that the bare client writes what the operator writes."""
    item = fakes.job(number)
    item["metadata"]["namespace"] = namespace
    raw: Manifest = {**item, "metadata": {**item["metadata"], "uid": _UID, "generation": 1, "resourceVersion": "1"}}
    settings = Settings(claim_name=fakes.CLAIM)
    references: dict[Reference, Manifest | None] = {
        Reference("Dataset", fakes.DATASET): dataset,
        Reference("PersistentVolumeClaim", fakes.CLAIM): claim,
    }
    observed = Observed(settings=settings, children={}, references=references, progress=None, denials={})
    outcome = KINDS["FineTuneJob"].reconcile(raw, observed, datetime.now(UTC))
    children = tuple(
        (path(child["kind"], namespace), json.dumps(child, separators=(",", ":")).encode()) for child in outcome.create
    )
    if [child["kind"] for child in outcome.create] != ["ConfigMap", "Job"]:
        raise StepError(f"a first pass creates {[child['kind'] for child in outcome.create]}")
    status = json.dumps({**item, "status": outcome.status}, separators=(",", ":")).encode()
    return Script(item["metadata"]["name"], json.dumps(item).encode(), children, status)


async def play(api: Api, namespace: str, scripts: list[Script], sightings: Sightings) -> None:
    """Write it all."""

    async def one(number: int) -> None:
        chosen = scripts[number]
        sightings.applied[chosen.name] = time.monotonic()
        answer = await api.send("POST", path("FineTuneJob", namespace), chosen.resource)
        uid = json.loads(answer)["metadata"]["uid"].encode()
        for where, body in chosen.children:
            await api.send("POST", where, body.replace(_UID.encode(), uid))
        # As a merge patch without a version: the same bytes, and no object to be read for it.
        await api.send("PATCH", path("FineTuneJob", namespace, chosen.name, "status"), chosen.status)

    await in_parallel(len(scripts), one)
