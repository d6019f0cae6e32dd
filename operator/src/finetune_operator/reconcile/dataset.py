"""What becomes of a Dataset: one prepare Job per reading of its source, then a revision in the status."""

import hashlib
import json
from datetime import datetime
from functools import partial

from finetune_contract.datasets import DatasetResult
from finetune_operator.api.dataset import Dataset, DatasetStatus, DroppedRows, Revision, RowCounts, SplitCount
from finetune_operator.manifests import dataset as manifests
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import oneshot
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName, Event, Outcome
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
    """The store's claim, and the ConfigMap or claim that the rows come from."""
    source = (raw.get("spec") or {}).get("source") or {}
    found = [store_reference(settings)]
    if "configMap" in source:
        found.append(Reference("ConfigMap", source["configMap"]["name"]))
    if "persistentVolumeClaim" in source:
        found.append(Reference("PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]))
    return tuple(found)


def preparation_key(dataset: Dataset) -> str:
    """Names one reading: what decides the rows, and the token that asks to read again."""
    # Defaults are left out: a field that a later release adds must not make every Dataset read its source again.
    spec = dataset.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    decisive = {name: spec[name] for name in _DECISIVE if name in spec}
    token = _token(dataset)
    if token:
        decisive["rerun"] = token
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


_DECISIVE = ("source", "format", "columns", "prepare", "split", "license")
"""Fields of the spec whose edit reads the source again; the others say where and with what the pod runs."""


def _token(dataset: Dataset) -> str | None:
    """The word in spec.rerun; one that was removed still stands for the reading that it asked for."""
    revision = dataset.status.revision
    return dataset.spec.rerun or (revision.rerun if revision else None)


def reconcile(raw: Manifest, observed: Observed, now: datetime) -> Outcome:
    """Bring the Dataset one pass further."""
    dataset = read(Dataset, raw, now)
    if isinstance(dataset, Outcome):
        return dataset
    if is_deleted(raw):
        return Outcome()
    key = preparation_key(dataset)
    conditions = ConditionSet(dataset.status.conditions, dataset.metadata.generation, now)
    conditions.set(ACCEPTED, True, "Accepted")
    if dataset.status.revision and dataset.status.revision.key == key:
        conditions.ready("RevisionReady", _summary(dataset.status.revision))
        return _finish(dataset, observed, conditions, dataset.status.revision, key)
    missing = _missing_source(dataset, observed)
    if missing:
        conditions.waiting("SourceNotFound", missing)
        return _finish(dataset, observed, conditions, dataset.status.revision, key, wake_after=SOURCE_POLL_SECONDS)
    return _prepare(dataset, observed, conditions, key, now)


def _missing_source(dataset: Dataset, observed: Observed) -> str | None:
    store = store_reference(observed.settings)
    for reference, item in observed.references.items():
        if item is not None or reference == store:
            continue
        field = "configMap.name" if reference.kind == "ConfigMap" else "persistentVolumeClaim.claimName"
        return (
            f"spec.source.{field}: there is no {reference.kind} {reference.name!r} in namespace "
            f"{dataset.metadata.namespace}; create it, or name another"
        )
    return None


def _prepare(dataset: Dataset, observed: Observed, conditions: ConditionSet, key: str, now: datetime) -> Outcome:
    state = oneshot.state_of(
        observed,
        manifests.ROLE,
        key,
        parse=DatasetResult.model_validate_json,
        failure_in=lambda result: result.failure,
        latched=dataset.status.failure,
        generation=dataset.metadata.generation,
        now=now,
    )
    finish = partial(_finish, dataset, observed, conditions, dataset.status.revision, key)
    match state:
        case oneshot.Done(result):
            revision = _revision(dataset, result, key, now)
            conditions.ready("RevisionReady", _summary(revision))
            event = Event("Normal", "RevisionReady", _summary(revision))
            return _finish(dataset, observed, conditions, revision, key, events=(event,))
        case oneshot.GivenUp(failure):
            conditions.stalled(failure.reason, oneshot.explain(failure))
            event = Event("Warning", failure.reason, failure.message)
            return finish(failure=failure, events=() if dataset.status.failure == failure else (event,))
        case oneshot.Working() as working:
            conditions.waiting(*working.condition("Preparing", "reading the source"))
            return finish(failure=working.failure, wake_after=seconds_until([working.until], now))
        case oneshot.Outdated(job):
            conditions.waiting("Preparing", "starting again as the edited spec says")
            return finish(failure=dataset.status.failure, delete=with_plan(observed, job))
        case oneshot.Wanted(number) as wanted:
            create: tuple[Manifest, ...] = ()
            delete: tuple[ChildName, ...] = ()
            if oneshot.is_due(wanted, now):
                plan = manifests.build(dataset, key, number, observed.settings)
                wishes = (*missing_claim(observed, dataset.metadata.namespace), *plan)
                create, delete = to_create(observed, wishes, dataset.metadata.generation)
            message = f"trying again after {wanted.failure.reason}" if wanted.failure else "reading the source"
            conditions.waiting("Preparing", message)
            return finish(
                failure=wanted.failure, create=create, delete=delete, wake_after=oneshot.wait_for(wanted, now)
            )


def _finish(
    dataset: Dataset,
    observed: Observed,
    conditions: ConditionSet,
    revision: Revision | None,
    key: str,
    *,
    failure: object = None,
    create: tuple[Manifest, ...] = (),
    delete: tuple[ChildName, ...] = (),
    events: tuple[Event, ...] = (),
    wake_after: float | None = None,
) -> Outcome:
    note_denials(conditions, observed)
    note_one_node(conditions, observed)
    status = DatasetStatus.model_validate(
        {
            "observed_generation": dataset.metadata.generation,
            "conditions": conditions.to_list(),
            "phase": _phase(conditions),
            "revision": revision,
            "failure": failure,
        }
    )
    return Outcome(
        create=create,
        status=status_of(status),
        delete=delete + stale_children(observed, lambda _role, run: run == key[:16]),
        events=events,
        wake_after=wake_after,
    )


def _phase(conditions: ConditionSet) -> str:
    if conditions.holds("Ready"):
        return "Ready"
    return "Failed" if conditions.holds("Stalled") else "Preparing"


def _revision(dataset: Dataset, result: DatasetResult, key: str, now: datetime) -> Revision:
    """The revision that a reading made; one that found the same rows again is as old as before."""
    assert result.revision is not None
    assert result.format is not None
    before = dataset.status.revision
    is_known = before is not None and before.digest == result.revision.digest
    return Revision(
        digest=result.revision.digest,
        uri=result.revision.uri,
        key=key,
        rerun=_token(dataset),
        created_at=before.created_at if before and is_known else now.replace(microsecond=0),
        format=result.format.value,
        rows=RowCounts(read=result.rows_read, kept=result.rows_kept),
        dropped=[DroppedRows(reason=entry.reason.value, rows=entry.rows) for entry in result.dropped[:16]],
        splits=[SplitCount(name=entry.name, rows=entry.rows) for entry in result.splits[:4]],
    )


def _summary(revision: Revision) -> str:
    splits = ", ".join(f"{split.rows} {split.name}" for split in revision.splits)
    return f"{revision.rows.kept} of {revision.rows.read} rows: {splits}"
