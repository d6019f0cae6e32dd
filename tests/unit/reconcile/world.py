"""A resource, its surroundings and what the engine does with an outcome, without a cluster.

Every status that is written must fit the CRD's own schema: one that the API server refuses would be a wedge.
"""

import copy
import json
from datetime import timedelta
from typing import Any

from jsonschema import Draft4Validator

from finetune_contract.batching import BatchProgress
from finetune_contract.proof import ProofStatus
from finetune_contract.results import Progress
from finetune_operator.api.crd import RESOURCES, crd
from finetune_operator.reconcile.admission import Admission
from finetune_operator.reconcile.kinds import KINDS
from finetune_operator.reconcile.lineage import ancestors
from finetune_operator.reconcile.observed import Observed, Reference, Traffic
from finetune_operator.reconcile.outcome import ChildName, Event, Outcome
from finetune_operator.reconcile.storage import settings_of
from finetune_operator.reconcile.troubles import NO_REPORTS
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import Object


def _schema(kind: str) -> Object:
    model, meta, rules = next(entry for entry in RESOURCES if entry[1].kind == kind)
    root = crd(model, meta, rules)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return dict(root["properties"]["status"])


_STATUS = {kind: _schema(kind) for kind in KINDS}
SCHEMAS = {kind: Draft4Validator(schema) for kind, schema in _STATUS.items()}
CLAIM = Reference("PersistentVolumeClaim", "finetune-artifacts")


def as_stored(schema: Object, value: Any) -> Any:
    """What the API server makes of a value: unknown fields are pruned, defaults are filled in."""
    if "properties" in schema:
        defaults = {name: child["default"] for name, child in schema["properties"].items() if "default" in child}
        known = {
            **copy.deepcopy(defaults),
            **{name: item for name, item in value.items() if name in schema["properties"]},
        }
        return {name: as_stored(schema["properties"][name], item) for name, item in known.items()}
    if "items" in schema:
        return [as_stored(schema["items"], item) for item in value]
    return value


class World:
    """One resource and everything around it."""

    def __init__(self, resource: Object, *others: Object, settings: Settings | None = None) -> None:
        self.raw = copy.deepcopy(resource)
        self.others = {Reference(other["kind"], other["metadata"]["name"]): copy.deepcopy(other) for other in others}
        # Without the pause after a failure, which has tests of its own.
        self.settings = settings or Settings(retry_seconds=0)
        self.children: dict[str, list[Object]] = {}
        self.progress: Progress | None = None
        self.progress_of_batch: BatchProgress | None = None
        self.admissions: dict[str, Admission] = {}
        self.denials: dict[str, str] = {}
        self.reports = NO_REPORTS
        self.proofs: dict[str, ProofStatus] = {}
        self.traffic: dict[str, Traffic] = {}
        self.now = factories.NOW
        self.events: list[Event] = []
        self.created: list[str] = []
        self.made: list[Object] = []
        self.deleted: list[ChildName] = []
        self.writes = 0
        self.deletions_happen = True
        self.store: set[str] = set()

    # What the engine does

    def observe(self) -> Observed:
        kind, settings = KINDS[self.raw["kind"]], settings_of(self.settings, self.raw)
        return Observed(
            settings=settings,
            children={kind: tuple(copy.deepcopy(items)) for kind, items in self.children.items()},
            references={
                name: copy.deepcopy(self.others.get(name) or self.find(*name))
                for name in (*ancestors(self.raw, self.others.get), *kind.references(self.raw, settings))
            },
            progress=self.progress,
            batch_progress=self.progress_of_batch,
            admissions=dict(self.admissions),
            denials=dict(self.denials),
            reports=self.reports,
            proofs=self.proofs,
            traffic=self.traffic,
        )

    def decide(self) -> Outcome:
        return KINDS[self.raw["kind"]].reconcile(copy.deepcopy(self.raw), self.observe(), self.now)

    def act(self) -> Outcome:
        """One pass: decide, then act in the engine's order."""
        outcome = self.decide()
        for manifest in outcome.create:
            self._create(manifest)
        for manifest in outcome.apply:
            self._apply(manifest)
        self._write(outcome)
        for child in outcome.delete:
            self._delete(child)
        self.events += outcome.events
        return outcome

    def settle(self) -> Outcome:
        """Passes until one has no effect; the time stands still."""
        for _ in range(8):
            before = (self.writes, len(self.created), len(self.deleted), len(self.events))
            outcome = self.act()
            if before == (self.writes, len(self.created), len(self.deleted), len(self.events)):
                later = copy.deepcopy(self)
                later.now += timedelta(seconds=1)
                if outcome.wake_after is None:
                    assert later.decide().status == outcome.status, "the status moves with the clock"
                return outcome
        raise AssertionError(f"no end: {self.created}, {self.deleted}, {self.events}")

    def _create(self, manifest: Object) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if name in self.denials or self.find(kind, name) is not None:
            return
        self.created.append(name)
        self.made.append(copy.deepcopy(manifest))
        if not manifest["metadata"].get("ownerReferences"):  # what stands for the store
            self.others[Reference(kind, name)] = factories.as_child(manifest, self.now)
            return
        self.children.setdefault(kind, []).append(factories.as_child(manifest, self.now))

    def _apply(self, manifest: Object) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        known = self.find(kind, name)
        if known is None:
            known = factories.as_child(manifest, self.now)
            known["applied"] = copy.deepcopy(manifest)
            self.children.setdefault(kind, []).append(known)
        elif known["applied"] != manifest:
            known["metadata"]["labels"] = dict(manifest["metadata"]["labels"])
            known["metadata"]["annotations"] = dict(manifest["metadata"].get("annotations") or {})
            if known["applied"]["spec"] != manifest["spec"]:
                known["metadata"]["generation"] += 1
            known["applied"] = copy.deepcopy(manifest)

    def _write(self, outcome: Outcome) -> None:
        if outcome.status is None:
            return
        status = json.loads(json.dumps(outcome.status))
        before = self.raw.get("status") or {}
        if status == before:
            return
        schema = SCHEMAS[self.raw["kind"]]
        schema.validate(status)
        assert as_stored(_STATUS[self.raw["kind"]], status) == status, (
            "the server would keep another status: written for ever"
        )
        assert status["observedGeneration"] >= before.get("observedGeneration", 0)
        self.raw["status"] = status
        self.writes += 1

    def _delete(self, child: ChildName) -> None:
        item = self.find(child.kind, child.name)
        if item is None or item["metadata"]["uid"] != child.uid:
            return
        self.deleted.append(child)
        if not self.deletions_happen:
            item["metadata"]["deletionTimestamp"] = factories.stamp(self.now)
            return
        self.children[child.kind].remove(item)
        pods = self.children.get("Pod", [])
        self.children["Pod"] = [
            pod for pod in pods if all(owner["uid"] != child.uid for owner in pod["metadata"]["ownerReferences"])
        ]

    # What others do

    def find(self, kind: str, name: str) -> Object | None:
        return next((item for item in self.children.get(kind, []) if item["metadata"]["name"] == name), None)

    def jobs(self, role: str = "") -> list[Object]:
        found = self.children.get("Job", [])
        return [job for job in found if not role or job["metadata"]["labels"]["finetune.dev/role"] == role]

    def newest(self, role: str) -> Object:
        return self.jobs(role)[-1]

    def pod(self, job: Object, **status: Any) -> Object:
        """The Job's pod, in some state."""
        pod = factories.make_pod(job, now=self.now, **status)
        self.children.setdefault("Pod", []).append(pod)
        return pod

    def end(self, job: Object, message: str = "", **how: Any) -> None:
        """The Job's newest pod runs to its end."""
        status = how.pop("status", None) or factories.terminated(message, now=self.now, **how)
        for pod in reversed(self.children.get("Pod", [])):
            if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]:
                pod["status"] = status
                break
        else:
            self.pod(job, **status)
        factories.ended(job, complete=status["phase"] == "Succeeded", now=self.now)

    def edit(self, **spec: Any) -> None:
        """Somebody edits the spec."""
        self.raw["spec"] |= spec
        self.raw["metadata"]["generation"] += 1

    def wipe(self) -> None:
        """The status is lost, as after a restore."""
        self.raw.pop("status", None)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # What is to be seen

    @property
    def status(self) -> Object:
        return dict(self.raw.get("status") or {})

    def condition(self, type_: str) -> Object | None:
        return next((item for item in self.status.get("conditions", []) if item["type"] == type_), None)

    def says(self, type_: str) -> str:
        """`status reason: message` of a condition."""
        found = self.condition(type_)
        return f"{found['status']} {found['reason']}: {found['message']}" if found else ""
