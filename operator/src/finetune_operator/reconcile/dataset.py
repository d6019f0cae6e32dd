"""What becomes of a Dataset: one prepare Job per reading of its source, then a revision in the status."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from finetune_contract.base import StoredReference
from finetune_contract.datasets import DatasetResult, MixturePart
from finetune_operator.api.cleaning import (
    StagedTokenizer,
)
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.datasetstatus import (
    DatasetStatus,
    RefreshStatus,
    Revision,
)
from finetune_operator.manifests import dataset as manifests
from finetune_operator.manifests import staging
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import mixture, oneshot, readings, tokenizer
from finetune_operator.reconcile import refresh as refreshing
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.lineage import mixed_in
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName, Event, Outcome
from finetune_operator.reconcile.readings import Reading
from finetune_operator.reconcile.refresh import REFRESHED
from finetune_operator.reconcile.resources import (
    ACCEPTED,
    is_deleted,
    missing_claim,
    note_denials,
    read,
    seconds_until,
    stale_children,
    status_of,
    to_create,
    with_plan,
)
from finetune_operator.reconcile.storage import note_one_node, store_reference
from finetune_operator.settings import Settings

SOURCE_POLL_SECONDS = 5.0
"""How often a source that is not there yet is looked for."""


def references(raw: Manifest, settings: Settings) -> tuple[Reference, ...]:
    """The store's claim, and the ConfigMap, claim or Datasets that the rows come from."""
    spec = raw.get("spec") or {}
    source = spec.get("source") or {}
    found = [store_reference(settings)]
    if "configMap" in source:
        found.append(Reference("ConfigMap", source["configMap"]["name"]))
    if "persistentVolumeClaim" in source:
        found.append(Reference("PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]))
    return (*found, *(Reference("Dataset", name) for name in mixed_in(spec)), *tokenizer.upstream_of(spec))


def preparation_key(dataset: Dataset, scheduled_for: datetime | None = None) -> str:
    """Names one reading: what decides the rows, and the token or scheduled time that asks to read again."""
    # Defaults are left out: a field that a later release adds must not make every Dataset read its source again.
    spec = dataset.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    decisive = {name: spec[name] for name in _DECISIVE if name in spec}
    token = _token(dataset)
    if token:
        decisive["rerun"] = token
    if scheduled_for:
        decisive["scheduledFor"] = scheduled_for.isoformat()
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


_DECISIVE = ("source", "format", "columns", "files", "prepare", "split", "license", "tokenizer")
"""Fields of the spec whose edit reads the source again; the others say where and with what the pod runs."""


def _token(dataset: Dataset) -> str | None:
    """The word in spec.rerun; one that was removed still stands for the reading that it asked for."""
    revision = dataset.status.revision
    return dataset.spec.rerun or (revision.rerun if revision else None)


@dataclass(frozen=True)
class _Pass:
    """One look at a Dataset."""

    dataset: Dataset
    observed: Observed
    conditions: ConditionSet
    now: datetime
    refresh: RefreshStatus | None
    key: str
    is_refresh: bool
    """Whether the revision is what the spec asks for, and the source is only read again."""

    def _is_present(self, role: str, run: str) -> bool:
        """Whether a child belongs to what is wanted now."""
        key = tokenizer.key_of(self.dataset, self.observed) if role == staging.ROLE else self.key
        return run == key[:16]

    # --- what is said ---

    def waiting(self, reason: str, message: str) -> None:
        """The source is being read, or will be."""
        if self.is_refresh:
            self.conditions.set(REFRESHED, None, reason, message)
        else:
            self.conditions.waiting(reason, message)

    def stalled(self, reason: str, message: str) -> None:
        """It will not be read unless somebody does something."""
        if self.is_refresh:
            self.conditions.set(REFRESHED, False, reason, message)
        else:
            self.conditions.stalled(reason, message)

    def finish(
        self,
        *,
        revision: Revision | None = None,
        staged: StagedTokenizer | None = None,
        failure: object = None,
        is_given_up: bool = False,
        create: tuple[Manifest, ...] = (),
        delete: tuple[ChildName, ...] = (),
        events: tuple[Event, ...] = (),
        wake_after: float | None = None,
    ) -> Outcome:
        """The pass's outcome; `revision` and `staged` are new ones."""
        dataset, refresh = self.dataset, self.refresh
        note_denials(self.conditions, self.observed)
        note_one_node(self.conditions, self.observed)
        if refresh is not None:
            said = failure if is_given_up and self.is_refresh else None
            refresh = RefreshStatus.model_validate({**refresh.model_dump(), "failure": said})
            waits = (wake_after, seconds_until([refresh.next_at], self.now))
            wake_after = min((wait for wait in waits if wait is not None), default=None)
        status = DatasetStatus.model_validate(
            {
                "observed_generation": dataset.metadata.generation,
                "conditions": self.conditions.to_list(),
                "phase": _phase(self.conditions),
                "revision": revision or dataset.status.revision,
                "history": readings.history(dataset, revision),
                "refresh": refresh,
                "tokenizer": staged or (dataset.status.tokenizer if dataset.spec.tokenizer else None),
                "failure": failure,
            }
        )
        return Outcome(
            create=create,
            status=status_of(status),
            delete=delete + stale_children(self.observed, self._is_present),
            events=events,
            wake_after=wake_after,
        )


def reconcile(raw: Manifest, observed: Observed, now: datetime) -> Outcome:
    """Bring the Dataset one pass further."""
    dataset = read(Dataset, raw, now)
    if isinstance(dataset, Outcome):
        return dataset
    if is_deleted(raw):
        return Outcome()
    look = _look(dataset, observed, now)
    if fault := _fault_in(dataset, observed):
        reason, message = fault
        look.conditions.set(ACCEPTED, False, reason, message)
        look.conditions.stalled(reason, message)
        return look.finish()
    look.conditions.set(ACCEPTED, True, "Accepted")
    revision = dataset.status.revision
    if revision and (look.is_refresh or revision.key == look.key):
        look.conditions.ready("RevisionReady", readings.summary(revision))
    if revision and revision.key == look.key:
        _note_schedule(look, revision)
        return look.finish()
    missing = _missing_source(dataset, observed)
    if missing:
        look.waiting("SourceNotFound", missing)
        return look.finish(wake_after=SOURCE_POLL_SECONDS)
    parts = mixture.parts_of(dataset, observed)
    if parts and isinstance(parts[0], str):
        look.waiting(*parts)
        return look.finish()
    if dataset.spec.tokenizer is None:
        return _prepare(look, parts, None)
    found = tokenizer.find(dataset, observed, now)
    if found.staged is None:
        return _staging(look, found)
    return _prepare(look, parts, found.staged)


def _staging(look: _Pass, found: tokenizer.Found) -> Outcome:
    """The tokenizer is on its way, or cannot be had."""
    events: tuple[Event, ...] = ()
    if found.is_given_up and found.failure:
        look.stalled(found.reason, found.message)
        if look.dataset.status.failure != found.failure:
            events = (Event("Warning", found.failure.reason, found.failure.message),)
    else:
        look.waiting(found.reason, found.message)
    return look.finish(
        failure=found.failure,
        is_given_up=found.is_given_up,
        create=found.create,
        delete=found.delete,
        events=events,
        wake_after=found.wake_after,
    )


def _look(dataset: Dataset, observed: Observed, now: datetime) -> _Pass:
    revision = dataset.status.revision
    is_valid = dataset.spec.refresh is None or refreshing.fault_in(dataset.spec.refresh) is None
    refresh = refreshing.state_at(dataset, now) if is_valid else None
    before = revision.scheduled_for if revision else None
    key = preparation_key(dataset, (refresh.scheduled_for if refresh else None) or before)
    is_refresh = revision is not None and revision.key == preparation_key(dataset, before) != key
    conditions = ConditionSet(dataset.status.conditions, dataset.metadata.generation, now)
    if dataset.spec.refresh is None:
        conditions.remove(REFRESHED)
    return _Pass(dataset, observed, conditions, now, refresh, key, is_refresh)


def _fault_in(dataset: Dataset, observed: Observed) -> tuple[str, str] | None:
    """What no reading could mend: a reason and a message."""
    spec = dataset.spec
    if spec.license:
        try:
            canonicalize_license_expression(spec.license.spdx)
        except InvalidLicenseExpression:
            return "InvalidSpec", (
                f"spec.license.spdx: {spec.license.spdx!r} is no SPDX identifier (https://spdx.org/licenses); for "
                "terms of your own write LicenseRef-NAME"
            )
    if spec.refresh and (fault := refreshing.fault_in(spec.refresh)):
        return "InvalidSpec", fault
    if spec.source.mixture and (spec.split.validation or spec.split.test):
        return "InvalidSpec", (
            "spec.split: the rows of a mixture keep the sides that they have in its Datasets; set fractions there"
        )
    around = mixture.circle_of(dataset, observed)
    return ("ReferenceCycle", around) if around else None


def _note_schedule(look: _Pass, revision: Revision) -> None:
    """Say when the source was read by the schedule, and when it will be."""
    if look.refresh is None or look.refresh.next_at is None:
        return
    following = f"read again at {look.refresh.next_at:%Y-%m-%d %H:%M} UTC"
    if revision.scheduled_for is None:
        look.conditions.set(REFRESHED, True, "NotYetDue", following)
    else:
        last = f"{revision.scheduled_for:%Y-%m-%d %H:%M} UTC"
        look.conditions.set(REFRESHED, True, "SourceRead", f"read for {last}, {following}")


def _missing_source(dataset: Dataset, observed: Observed) -> str | None:
    store = store_reference(observed.settings)
    for reference, item in observed.references.items():
        if item is not None or reference == store or reference.kind in ("Dataset", "FineTuneJob"):
            continue
        field = "configMap.name" if reference.kind == "ConfigMap" else "persistentVolumeClaim.claimName"
        return (
            f"spec.source.{field}: there is no {reference.kind} {reference.name!r} in namespace "
            f"{dataset.metadata.namespace}; create it, or name another"
        )
    return None


def _prepare(look: _Pass, parts: tuple[MixturePart, ...], staged: StagedTokenizer | None) -> Outcome:
    dataset, observed, now = look.dataset, look.observed, look.now
    state = oneshot.state_of(
        observed,
        manifests.ROLE,
        look.key,
        parse=DatasetResult.from_message,
        failure_in=lambda result: result.failure,
        latched=dataset.status.failure,
        generation=dataset.metadata.generation,
        now=now,
    )
    match state:
        case oneshot.Done(result):
            return _done(look, result, staged)
        case oneshot.GivenUp(failure):
            look.stalled(failure.reason, oneshot.explain(failure))
            event = Event("Warning", failure.reason, failure.message)
            events = () if dataset.status.failure == failure else (event,)
            return look.finish(staged=staged, failure=failure, is_given_up=True, events=events)
        case oneshot.Working() as working:
            look.waiting(*working.condition("Preparing", "reading the source"))
            return look.finish(staged=staged, failure=working.failure, wake_after=seconds_until([working.until], now))
        case oneshot.Outdated(job):
            look.waiting("Preparing", "starting again as the edited spec says")
            return look.finish(staged=staged, failure=dataset.status.failure, delete=with_plan(observed, job))
        case oneshot.Wanted(number) as wanted:
            create: tuple[Manifest, ...] = ()
            delete: tuple[ChildName, ...] = ()
            if oneshot.is_due(wanted, now):
                counting = StoredReference(digest=staged.digest, uri=staged.uri) if staged else None
                plan = manifests.build(dataset, look.key, number, observed.settings, parts, counting)
                wishes = (*missing_claim(observed, dataset.metadata.namespace), *plan)
                create, delete = to_create(observed, wishes, dataset.metadata.generation)
            look.waiting(
                "Preparing", f"trying again after {wanted.failure.reason}" if wanted.failure else "reading the source"
            )
            return look.finish(
                staged=staged,
                failure=wanted.failure,
                create=create,
                delete=delete,
                wake_after=oneshot.wait_for(wanted, now),
            )


def _done(look: _Pass, result: DatasetResult, staged: StagedTokenizer | None) -> Outcome:
    reading = Reading(look.dataset, look.key, _token(look.dataset), look.refresh, staged, look.now)
    revision = readings.made_by(reading, result)
    look.conditions.ready("RevisionReady", readings.summary(revision))
    _note_schedule(look, revision)
    before = look.dataset.status.revision
    # A schedule that finds the same rows week after week is no news.
    is_news = not look.is_refresh or before is None or before.digest != revision.digest
    events = (Event("Normal", "RevisionReady", readings.summary(revision)),) if is_news else ()
    return look.finish(revision=revision, staged=staged, events=events)


def _phase(conditions: ConditionSet) -> str:
    if conditions.holds("Ready"):
        return "Ready"
    return "Failed" if conditions.holds("Stalled") else "Preparing"
