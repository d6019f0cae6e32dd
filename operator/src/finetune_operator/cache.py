"""What the watches last said: our resources in full, their children slimmed, indexed by owner.

Objects are kept as compressed JSON: a fraction of the memory of dicts, and nobody can change one by accident.
An object is never replaced by an older version of itself, and one that was deleted never comes back, whatever order
watches, lists and answers to our own writes arrive in. Every change answers with the keys that should be looked at.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from finetune_contract.batching import BatchProgress
from finetune_contract.proof import ProofStatus
from finetune_contract.results import Progress
from finetune_operator.cluster import OWN_KINDS
from finetune_operator.entries import Entry, Key, Place, QueuedJob, RunningPod, entry_of
from finetune_operator.manifests.naming import Manifest
from finetune_operator.packing import pack
from finetune_operator.reconcile.admission import Admission
from finetune_operator.reconcile.observed import Reference, Traffic

A = TypeVar("A")
B = TypeVar("B")

REMEMBERED_DELETIONS = 20_000
"""Uids of deleted objects that are remembered, so that a list or an answer in flight cannot bring one back."""


class Cache:
    """The state of the cluster, as far as it concerns us. Not thread-safe: it belongs to the event loop."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._places: dict[Place, str] = {}
        self._children: defaultdict[Key, set[str]] = defaultdict(set)
        self._pods: defaultdict[str, set[str]] = defaultdict(set)
        """Uid of a Job -> uids of its Pods."""
        self._training: dict[str, RunningPod] = {}
        self._unproven: dict[str, RunningPod] = {}
        self._canaries: dict[str, RunningPod] = {}
        self._queued: dict[str, QueuedJob] = {}
        self._references: dict[Key, tuple[Place, ...]] = {}
        self._referrers: defaultdict[Place, set[Key]] = defaultdict(set)
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self.summaries: Counter[tuple[str, str, str]] = Counter()
        """Number of our resources by kind, phase and reason."""
        self._changed_at: defaultdict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
        """Kind, phase and reason -> uid -> when a condition of the resource last changed."""
        self.ignored_gates: Counter[str] = Counter()
        """Namespace -> number of ModelDeployments that serve something by spec.ignoreGate."""
        self.adapters: Counter[tuple[str, str]] = Counter()
        """Namespace and state -> number of adapters of ModelDeployments."""
        self.progress: dict[Key, Progress | BatchProgress] = {}
        """What the newest running training or batch pod of a resource said last."""
        self.proofs: dict[str, ProofStatus] = {}
        """Uid of a serving pod that is not ready -> what its prober said last."""
        self.traffic: dict[str, Traffic] = {}
        """Uid of a canary pod -> what it had counted when it was asked last."""
        self.admissions: dict[str, Admission] = {}
        """Uid of a Job that waits in a queue -> what Kueue said of it last."""

    # Reading

    def keys(self) -> Iterator[Key]:
        """All our resources."""
        return (Key(*place) for place in list(self._places) if place.kind in OWN_KINDS)

    def get(self, place: Place | Key) -> Manifest | None:
        """An object that exists."""
        entry = self.entry(place)
        return entry.load() if entry else None

    def entry(self, place: Place | Key) -> Entry | None:
        """The entry of an object that exists."""
        uid = self._places.get(Place(*place))
        return self._entries[uid] if uid else None

    def children(self, key: Key, uid: str) -> dict[str, tuple[Manifest, ...]]:
        """Kind -> children of the resource with this uid, oldest first."""
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in (self._entries[child] for child in self._children.get(key, ())):
            if self._is_child(entry, uid):
                found[entry.place.kind].append(entry)
        return {
            kind: tuple(entry.load() for entry in sorted(entries, key=lambda entry: (entry.created, entry.place.name)))
            for kind, entries in found.items()
        }

    def training_pods(self) -> list[RunningPod]:
        """Training and batch pods that run now."""
        return list(self._training.values())

    def unproven_pods(self) -> list[RunningPod]:
        """Serving pods that run and are not ready now."""
        return list(self._unproven.values())

    def canary_pods(self) -> list[RunningPod]:
        """Canary pods that run now."""
        return list(self._canaries.values())

    def queued_jobs(self) -> list[QueuedJob]:
        """Jobs that wait in a queue now."""
        return list(self._queued.values())

    def of_kind(self, kind: str) -> list[Entry]:
        """Entries of one kind, without tombstones."""
        return [self._entries[uid] for place, uid in self._places.items() if place.kind == kind]

    def versions(self, kind: str) -> dict[str, int]:
        """Uid -> version of the objects of one kind."""
        return {entry.uid: entry.version for entry in self.of_kind(kind)}

    def oldest_transitions(self) -> dict[tuple[str, str, str], float]:
        """Kind, phase and reason -> when a condition last changed, of the resource that has not moved for longest."""
        return {summary: min(times.values()) for summary, times in self._changed_at.items() if times}

    # Changing

    def put(self, manifest: Manifest) -> set[Key]:
        """Take in an object as a watch, a list or an answer to a write shows it; nothing if that is old news."""
        metadata = manifest["metadata"]
        uid, version = str(metadata["uid"]), int(metadata["resourceVersion"])
        known = self._entries.get(uid)
        if uid in self._deleted or (known is not None and known.version >= version):
            return set()
        entry = entry_of(manifest, version)
        namesake = self.entry(entry.place)
        if namesake is not None and namesake.version > version:
            return set()
        affected = self.vanish(namesake.uid) if namesake is not None and namesake is not known else set()
        if known is not None:
            affected |= self._concerned(known)
            self._unlink(known)
        self._link(entry)
        return affected | self._concerned(entry)

    def remove(self, manifest: Manifest) -> set[Key]:
        """An object was deleted; this is its last state."""
        affected = self.put(manifest)
        return affected | self.vanish(str(manifest["metadata"]["uid"]))

    def vanish(self, uid: str) -> set[Key]:
        """An object was deleted, and the cache knows its last state better than the caller."""
        self._deleted[uid] = None
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        entry = self._entries.get(uid)
        if entry is None or entry.gone:
            return set()
        concerned = self._concerned(entry)
        self._unlink(entry)
        if entry.place.kind == "Pod" and entry.controller in self._entries:
            entry.gone, entry.address = True, None
            self._mark_deleted(entry)
            self._link(entry)
        for pod in [self._entries[pod] for pod in self._pods.get(uid, ())]:
            if pod.gone:
                self._unlink(pod)
        if entry.place.kind in OWN_KINDS:
            self.refer(Key(*entry.place), ())
        return concerned

    def doom(self, uid: str) -> None:
        """An object is being deleted at our request; the watch will tell when it is gone."""
        if uid in self._entries:
            self._mark_deleted(self._entries[uid])

    def refer(self, key: Key, references: Iterable[Reference]) -> None:
        """What a resource refers to: changes of those will concern it."""
        places = tuple(Place(reference.kind, key.namespace, reference.name) for reference in references)
        for place in self._references.pop(key, ()):
            _discard(self._referrers, place, key)
        if places:
            self._references[key] = places
        for place in places:
            self._referrers[place].add(key)

    # Inside

    def _is_child(self, entry: Entry, uid: str) -> bool:
        if entry.place.kind != "Pod":
            return entry.controller in (None, uid)
        job = self._entries.get(entry.controller or "")
        # The Job decides while it is known; a ReplicaSet's pods go by their labels alone.
        return job is None or job.controller == uid

    def _concerned(self, entry: Entry) -> set[Key]:
        """Who should look when this object changes."""
        concerned = set(self._referrers.get(entry.place, ()))
        if entry.place.kind in OWN_KINDS:
            concerned.add(Key(*entry.place))
        if entry.owner is not None:
            concerned.add(entry.owner)
        return concerned

    def _link(self, entry: Entry) -> None:
        self._entries[entry.uid] = entry
        if not entry.gone:
            self._places[entry.place] = entry.uid
        if entry.owner is not None:
            self._children[entry.owner].add(entry.uid)
        if entry.place.kind == "Pod" and entry.controller is not None:
            self._pods[entry.controller].add(entry.uid)
        if entry.address and entry.owner:
            self._training[entry.uid] = RunningPod(entry.uid, entry.created, entry.owner, entry.address)
        if entry.unproven and entry.owner:
            self._unproven[entry.uid] = RunningPod(entry.uid, entry.created, entry.owner, entry.unproven)
        if entry.canary and entry.owner:
            self._canaries[entry.uid] = RunningPod(entry.uid, entry.created, entry.owner, entry.canary)
        if entry.queue and entry.owner:
            self._queued[entry.uid] = QueuedJob(entry.uid, entry.owner, entry.queue)
        if entry.summary:
            self.summaries[(entry.place.kind, *entry.summary)] += 1
            self._changed_at[(entry.place.kind, *entry.summary)][entry.uid] = entry.changed_at
        if entry.ignores_gate:
            self.ignored_gates[entry.place.namespace] += 1
        self.adapters.update((entry.place.namespace, state) for state in entry.adapters)

    def _unlink(self, entry: Entry) -> None:
        del self._entries[entry.uid]
        self._training.pop(entry.uid, None)
        self._unproven.pop(entry.uid, None)
        self._canaries.pop(entry.uid, None)
        self._queued.pop(entry.uid, None)
        if self._places.get(entry.place) == entry.uid:
            del self._places[entry.place]
        if entry.owner is not None:
            _discard(self._children, entry.owner, entry.uid)
        if entry.place.kind == "Pod" and entry.controller is not None:
            _discard(self._pods, entry.controller, entry.uid)
        if entry.summary:
            self.summaries[(entry.place.kind, *entry.summary)] -= 1
            del self._changed_at[(entry.place.kind, *entry.summary)][entry.uid]
        if entry.ignores_gate:
            self.ignored_gates[entry.place.namespace] -= 1
        self.adapters.subtract((entry.place.namespace, state) for state in entry.adapters)

    @staticmethod
    def _mark_deleted(entry: Entry) -> None:
        manifest = entry.load()
        manifest["metadata"].setdefault("deletionTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        entry.packed = pack(manifest)


def _discard(index: dict[A, set[B]], where: A, what: B) -> None:
    index[where].discard(what)
    if not index[where]:
        del index[where]
