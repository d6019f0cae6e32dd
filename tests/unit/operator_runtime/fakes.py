"""A cluster in memory, a clock that is moved by hand, and makers of objects that are valid by default."""

import copy
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_operator.cluster import JOB_UID, OWN_KINDS, PAGE_SIZE, Head, Heads, Page, controller_uid
from finetune_operator.errors import Conflict, NotFound
from finetune_operator.manifests.naming import API_VERSION, Manifest, labels, owner_reference

NAMESPACE = "team"


class Crash(BaseException):
    """The process dies here."""


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Monotonic seconds, timers and wall time."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self._timers: list[tuple[float, int, Timer, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer()
        heapq.heappush(self._timers, (self.seconds + delay, next(self._numbers), timer, callback))
        return timer

    def advance(self, seconds: float) -> None:
        until = self.seconds + seconds
        while self._timers and self._timers[0][0] <= until:
            due, _, timer, callback = heapq.heappop(self._timers)
            self.seconds = max(self.seconds, due)
            if not timer.cancelled:
                callback()
        self.seconds = until


class FakeCluster:
    """`cluster.Cluster` in memory, with versions, uids, conflicts and refusals."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.events: list[tuple[str, int]] = []
        self.said: list[Manifest] = []
        """Events of others."""
        self.denied: dict[str, Exception] = {}
        """Name of an object -> what creating or applying it raises."""
        self.fail: Callable[[str], None] = lambda _: None
        """Called before each request; may raise."""
        self.after_write: Callable[[], None] = lambda: None
        """Called after each write was stored; may raise."""
        self.has_kueue = True
        self.kueue_workloads: list[Manifest] = []
        self.pending: dict[str, list[Manifest]] = {}
        """Name of a queue -> what its visibility API answers."""
        self._numbers = itertools.count(1)

    # What tests do to the cluster

    def add(self, manifest: Manifest) -> Manifest:
        """Somebody else makes or changes an object; answers what a watch would show."""
        manifest = copy.deepcopy(manifest)
        place = _place(manifest)
        known = self.objects.get(place)
        metadata = manifest["metadata"]
        metadata.setdefault("uid", known["metadata"]["uid"] if known else f"uid-{next(self._numbers)}")
        metadata.setdefault("creationTimestamp", f"2026-11-21T00:00:{next(self._numbers) % 60:02}Z")
        metadata["resourceVersion"] = str(next(self._numbers))
        self.objects[place] = manifest
        return copy.deepcopy(manifest)

    def take_away(self, kind: str, name: str, namespace: str = NAMESPACE) -> Manifest:
        """Somebody else deletes an object; answers what a watch would show."""
        gone = self.objects.pop((kind, namespace, name))
        gone["metadata"]["resourceVersion"] = str(next(self._numbers))
        return gone

    def names(self, kind: str) -> list[str]:
        return [name for (found, _, name) in self.objects if found == kind]

    # cluster.Cluster

    async def get(self, kind: str, namespace: str, name: str) -> Manifest:
        self._read(f"get {kind} {name}")
        try:
            return copy.deepcopy(self.objects[(kind, namespace, name)])
        except KeyError:
            raise NotFound(f"{kind} {name}") from None

    async def list(self, kind: str, namespace: str | None) -> AsyncIterator[Page]:
        self._read(f"list {kind}")
        found = [value for (k, n, _), value in self.objects.items() if k == kind and namespace in (None, n)]
        version = str(next(self._numbers))
        for start in range(0, max(1, len(found)), PAGE_SIZE):
            yield Page(copy.deepcopy(found[start : start + PAGE_SIZE]), version)

    async def heads(self, kind: str, namespace: str | None) -> AsyncIterator[Heads]:
        async for page in self.list(kind, namespace):
            found = [item["metadata"] for item in page.items]
            heads = [Head(one["uid"], one["namespace"], one["name"], int(one["resourceVersion"])) for one in found]
            yield Heads(heads, page.resource_version)

    async def create(self, manifest: Manifest) -> Manifest:
        found = self.objects.get(_place(manifest))
        self._may("create", manifest)
        if found is not None:
            if controller_uid(found) != controller_uid(manifest):
                raise Conflict("belongs to another owner")
            return copy.deepcopy(found)
        return self._store("create", manifest)

    async def apply(self, manifest: Manifest) -> Manifest:
        self._may("apply", manifest)
        return self._store("apply", {**self.objects.get(_place(manifest), {}), **manifest})

    async def replace(self, manifest: Manifest) -> Manifest:
        self._may("replace", manifest)
        self._check_version(manifest)
        return self._store("replace", manifest)

    async def replace_status(self, manifest: Manifest) -> Manifest:
        self._may("status", manifest)
        self._check_version(manifest)
        return self._store("status", {**self.objects[_place(manifest)], "status": manifest["status"]})

    async def delete(self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool = False) -> None:
        found = self.objects.get((kind, namespace, name))
        self.fail(f"delete {kind} {name}")
        if found is None:
            return
        if found["metadata"]["uid"] != uid:
            raise Conflict("re-created")
        del self.objects[(kind, namespace, name)]
        self._written(f"delete {kind} {name}{' in the foreground' if foreground else ''}")

    async def record(self, event: Manifest, count: int) -> None:
        self.fail("record")
        self.events.append((event["reason"], count))

    async def events_about(self, namespace: str, kind: str, reason: str) -> tuple[Manifest, ...]:
        self._read(f"events {namespace} {kind} {reason}")
        return tuple(e for e in self.said if (e["regarding"]["kind"], e["reason"]) == (kind, reason))

    async def served_kinds(self) -> frozenset[str]:
        return frozenset(OWN_KINDS)

    async def workloads(self, namespace: str, jobs: Iterable[str]) -> tuple[Manifest, ...]:
        self._read(f"workloads {namespace}")
        if not self.has_kueue:
            raise NotFound("the server could not find the requested resource")
        wanted = set(jobs)
        return tuple(item for item in self.kueue_workloads if item["metadata"]["labels"][JOB_UID] in wanted)

    async def pending_workloads(self, namespace: str, queue: str) -> tuple[Manifest, ...]:
        self._read(f"pending {namespace}/{queue}")
        if queue not in self.pending:
            raise NotFound(queue)
        return tuple(copy.deepcopy(self.pending[queue]))

    # Inside

    def _read(self, what: str) -> None:
        self.fail(what)
        self.reads.append(what)

    def _may(self, verb: str, manifest: Manifest) -> None:
        self.fail(f"{verb} {manifest['kind']} {manifest['metadata']['name']}")
        if verb in ("create", "apply") and manifest["metadata"]["name"] in self.denied:
            raise self.denied[manifest["metadata"]["name"]]

    def _check_version(self, manifest: Manifest) -> None:
        found = self.objects.get(_place(manifest))
        if found is None:
            raise NotFound(manifest["metadata"]["name"])
        if found["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")

    def _store(self, verb: str, manifest: Manifest) -> Manifest:
        stored = self.add(manifest)
        self._written(f"{verb} {manifest['kind']} {manifest['metadata']['name']}")
        return stored

    def _written(self, what: str) -> None:
        self.writes.append(what)
        self.after_write()


def make_resource(kind: str = "FineTuneJob", name: str = "tune", **fields: Any) -> Manifest:
    metadata = {"name": name, "namespace": NAMESPACE, **fields.pop("metadata", {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": {}, **fields}


def make_job(owner: Manifest, name: str | None = None, **fields: Any) -> Manifest:
    """A child Job of a resource that the cluster knows."""
    return make_child("Job", owner, name or f"{owner['metadata']['name']}-1", api_version="batch/v1", **fields)


def make_child(
    kind: str, owner: Manifest, name: str, *, api_version: str = "v1", role: str = "train", **fields: Any
) -> Manifest:
    meta = owner["metadata"]
    metadata = {
        "name": name,
        "namespace": meta["namespace"],
        "labels": labels(owner["kind"], meta["name"], role),
        "ownerReferences": [owner_reference(owner["kind"], meta["name"], meta["uid"])],
        **fields.pop("metadata", {}),
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {}, **fields}


def make_pod(
    job: Manifest, name: str = "tune-1-abc", *, phase: str = "Running", ip: str = "10.0.0.1", **fields: Any
) -> Manifest:
    meta = job["metadata"]
    metadata = {
        "name": name,
        "namespace": meta["namespace"],
        "labels": meta["labels"],
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        ],
        **fields.pop("metadata", {}),
    }
    status = {"phase": phase, "podIP": ip}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "node-1", "containers": []},
        "status": status,
        **fields,
    }


def _place(manifest: Manifest) -> tuple[str, str, str]:
    return manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]
