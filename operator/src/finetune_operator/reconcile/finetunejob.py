"""What becomes of a FineTuneJob: resolve its inputs once, train its run once, keep what came out.

The steps in order: the dataset's revision and the base's source are there; a stage Job brings the base into the store,
computes the run's key and looks up whether that run has succeeded before; attempts are made until one succeeds or
`retries.limit` is used up.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.failure import Failure, FailureReason
from finetune_contract.methods import unfit_rows
from finetune_contract.results import StageResult
from finetune_contract.staging import RunIngredients
from finetune_operator.api.finetunejob import FineTuneJob, Reuse
from finetune_operator.api.finetunejobstatus import OtherInput, ResolvedInputs, Run
from finetune_operator.manifests import jobs, staging, training
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import attempts, comparisons, gates, oneshot, record, upstream
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.draft import SUSPENDED, Draft
from finetune_operator.reconcile.endings import numbered
from finetune_operator.reconcile.lineage import measured_with, named_in
from finetune_operator.reconcile.measurable import METRIC_UNFIT, unmeasurable
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import Event, Outcome
from finetune_operator.reconcile.resources import ACCEPTED, is_deleted, read, ready_message, seconds_until, with_plan
from finetune_operator.reconcile.storage import in_another_store, store_reference
from finetune_operator.reconcile.upstream import Upstream
from finetune_operator.settings import Settings


def references(raw: Manifest, settings: Settings) -> tuple[Reference, ...]:
    """The store's claim, the Dataset, and what the base model comes from."""
    spec = raw.get("spec") or {}
    base = spec.get("baseModel") or {}
    found = [store_reference(settings)]
    if "dataset" in spec:
        found.append(Reference("Dataset", spec["dataset"]["name"]))
    found += [Reference("FineTuneJob", name) for name in dict.fromkeys((*named_in(spec), *measured_with(spec)))]
    if "persistentVolumeClaim" in base:
        found.append(Reference("PersistentVolumeClaim", base["persistentVolumeClaim"]["claimName"]))
    return tuple(found)


def reconcile(raw: Manifest, observed: Observed, now: datetime) -> Outcome:
    """Bring the FineTuneJob one pass further."""
    job = read(FineTuneJob, raw, now)
    if isinstance(job, Outcome):
        return job
    if is_deleted(raw):
        return Outcome()
    draft = Draft.of(job, observed, now)
    draft.conditions.set(ACCEPTED, True, "Accepted")
    if not job.spec.suspend:
        draft.conditions.remove(SUSPENDED)
    run = job.status.run
    if run is None and (message := unmeasurable(job, observed)):
        draft.conditions.set(ACCEPTED, False, METRIC_UNFIT, message)
        draft.conditions.stalled(METRIC_UNFIT, message)
        return draft.outcome()
    if run is None or run.stage != spec_key(job):
        if job.spec.suspend:
            if run is not None:
                attempts.advance(draft, job, run, observed, now)
            attempts.pause(draft, "its inputs are looked up when it goes on")
            return draft.outcome()
        resolved = _resolve(job, observed, draft, now)
        if resolved is None:
            return draft.outcome()
        run = _begin(draft, job, resolved, now)
    draft.conditions.set("DatasetReady", True, "Resolved", f"revision {run.inputs.dataset}")
    draft.conditions.set("Staged", True, "Resolved", f"base {run.inputs.base}")
    attempts.advance(draft, job, comparisons.latch(draft, job, run), observed, now)
    return draft.outcome()


def spec_key(job: FineTuneJob) -> str:
    """Names what of the spec decides the run; while it is the same, latched inputs stay."""
    # Defaults are left out: a field that a later release adds must not resolve every job's inputs again.
    base = job.spec.base_model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for source in base.values():
        source.pop("tokenSecretRef", None)
        source.pop("credentialsSecretRef", None)
    document = {"train": _ingredients(job), "base": base, "dataset": job.spec.dataset.name}
    token = _token(job)
    return _hash({**document, "rerun": token} if token else document)


def _token(job: FineTuneJob) -> str | None:
    """The word in spec.rerun; one that was removed still stands for the run that it asked for."""
    return job.spec.rerun or (job.status.run.rerun if job.status.run else None)


def _ingredients(job: FineTuneJob) -> dict[str, Any]:
    """What of the spec makes the run key; a run that may reuse nothing is this object's own, once for each token."""
    fields = job.spec.train_fields()
    if job.spec.reuse is Reuse.NEVER:
        fields["reuse"] = f"{job.metadata.uid}/{_token(job) or ''}"
    return fields


@dataclass(frozen=True)
class Resolved:
    """A finished resolution: what the stage Job said, and the dataset it was asked about."""

    dataset: StoredReference
    upstream: Upstream
    result: StageResult


def _resolve(job: FineTuneJob, observed: Observed, draft: Draft, now: datetime) -> Resolved | None:
    """What the names in the spec stand for; None while that is not known, with the conditions saying why."""
    dataset = _dataset_revision(job, observed, draft.conditions)
    if dataset is None:
        return None
    found = upstream.find(job, observed, draft.conditions)
    if found is None or _is_elsewhere(job, observed, draft.conditions, dataset, found):
        return None
    if _source_claim_missing(job, observed, draft):
        return None
    result = _stage(job, observed, draft, dataset, found, now)
    return Resolved(dataset, found, result) if result else None


def _is_elsewhere(
    job: FineTuneJob, observed: Observed, conditions: ConditionSet, dataset: StoredReference, found: Upstream
) -> bool:
    """Whether an input is in another store than the job's, with the conditions saying so."""
    things = {f"revision of Dataset {job.spec.dataset.name!r}": dataset}
    things |= {f"artifact for {part!r}": other for part, other in found.others.items()}
    if found.base:
        things["model of spec.baseModel.fineTuneJob"] = found.base
    message = in_another_store(observed.settings, things)
    if message:
        conditions.set("Staged", False, "StorageMismatch", message)
        conditions.stalled("StorageMismatch", message)
    return message is not None


def _stage(
    job: FineTuneJob,
    observed: Observed,
    draft: Draft,
    dataset: StoredReference,
    found: Upstream,
    now: datetime,
) -> StageResult | None:
    """What the stage Job said; None while it has not."""
    key = _stage_key(job, dataset, found)
    draft.stage_run = key[:16]
    state = oneshot.state_of(
        observed,
        staging.ROLE,
        key,
        parse=StageResult.from_message,
        failure_in=_stage_failure,
        latched=job.status.stage_failure,
        generation=job.metadata.generation,
        now=now,
    )
    match state:
        case oneshot.Done(result):
            return result
        case oneshot.GivenUp(failure):
            draft.stage_failure = failure
            draft.conditions.set("Staged", False, failure.reason, failure.message)
            draft.conditions.stalled(failure.reason, oneshot.explain(failure))
            if job.status.stage_failure != failure:
                draft.events.append(Event("Warning", failure.reason, failure.message))
        case oneshot.Working() as working:
            draft.stage_failure = working.failure
            draft.wake(seconds_until([working.until], now))
            _base_waits(draft.conditions, *working.condition("Staging", "bringing the base model into the store"))
        case oneshot.Outdated(outdated):
            draft.stage_failure = job.status.stage_failure
            draft.delete += with_plan(observed, outdated)
            _staging(draft.conditions, "starting again as the edited spec says")
        case oneshot.Wanted() as wanted:
            draft.stage_failure = wanted.failure
            _staging(draft.conditions, "bringing the base model into the store")
            draft.wake(oneshot.wait_for(wanted, now))
            if oneshot.is_due(wanted, now):
                draft.make(_stage_job(job, observed, key, wanted.number, dataset, found))
    return None


def _stage_key(job: FineTuneJob, dataset: StoredReference, found: Upstream) -> str:
    """Names one resolution: of this spec, with these inputs, for the job's next run."""
    number = job.status.run.number + 1 if job.status.run else 1
    base = found.base.digest if found.base else ""
    others = {"others": {part: other.digest for part, other in found.others.items()}} if found.others else {}
    return _hash({"spec": spec_key(job), "number": number, "dataset": dataset.digest, "base": base, **others})


def _stage_failure(result: StageResult) -> Failure | None:
    if result.failure is None and result.run_key is None:
        return Failure(reason=FailureReason.CONTRACT_VIOLATION, message="the stage pod did not say which run this is")
    return result.failure


def _staging(conditions: ConditionSet, message: str) -> None:
    conditions.set("Staged", False, "Staging", message)
    conditions.waiting("Staging", message)


def _stage_job(
    job: FineTuneJob,
    observed: Observed,
    key: str,
    number: int,
    dataset: StoredReference,
    found: Upstream,
) -> tuple[Manifest, ...]:
    metadata = job.metadata
    return staging.build(
        jobs.owner_of("FineTuneJob", metadata),
        job.spec.base_model,
        key=key,
        number=number,
        stored=found.base,
        run=RunIngredients(train_fields=_ingredients(job), dataset=dataset.digest, inputs=found.others),
        scheduling=job.spec.scheduling,
        template=job.spec.pod_template,
        settings=observed.settings,
    )


def _dataset_revision(job: FineTuneJob, observed: Observed, conditions: ConditionSet) -> StoredReference | None:
    name = job.spec.dataset.name
    dataset = observed.references.get(Reference("Dataset", name))
    if dataset is None:
        message = (
            f"spec.dataset.name: there is no Dataset {name!r} in namespace {job.metadata.namespace}; "
            "create it, and this job starts"
        )
        _dataset_waits(conditions, "DatasetNotFound", message)
        return None
    revision = (dataset.get("status") or {}).get("revision")
    if revision is None:
        reason = ready_message(dataset)
        _dataset_waits(conditions, "DatasetNotReady", f"Dataset {name!r} has no revision yet: {reason}")
        return None
    # A word of another release is for the trainer to judge.
    row_format = revision.get("format")
    if row_format in list(RowFormat) and (unfit := unfit_rows(job.spec.method, RowFormat(row_format))):
        conditions.set("DatasetReady", False, FailureReason.DATASET_INVALID, unfit)
        conditions.stalled(FailureReason.DATASET_INVALID, unfit)
        return None
    conditions.set("DatasetReady", True, "Ready", f"revision {revision['digest']}")
    return StoredReference(digest=revision["digest"], uri=revision["uri"])


def _dataset_waits(conditions: ConditionSet, reason: str, message: str) -> None:
    conditions.set("DatasetReady", False, reason, message)
    conditions.waiting(reason, message)


def _base_waits(conditions: ConditionSet, reason: str, message: str) -> None:
    conditions.set("Staged", False, reason, message)
    conditions.waiting(reason, message)


def _source_claim_missing(job: FineTuneJob, observed: Observed, draft: Draft) -> bool:
    source = job.spec.base_model.persistent_volume_claim
    if source is None or observed.references.get(Reference("PersistentVolumeClaim", source.claim_name)):
        return False
    message = (
        f"spec.baseModel.persistentVolumeClaim.claimName: there is no PersistentVolumeClaim {source.claim_name!r} "
        f"in namespace {job.metadata.namespace}; create it, or name another"
    )
    _base_waits(draft.conditions, "SourceNotFound", message)
    draft.wake(SOURCE_POLL_SECONDS)
    return True


SOURCE_POLL_SECONDS = 5.0
"""How often a source that is not there yet is looked for."""


def _begin(draft: Draft, job: FineTuneJob, resolved: Resolved, now: datetime) -> Run:
    """Latch the inputs. A run that differs from the last one starts with a clean record; a failed one is reopened."""
    result, previous = resolved.result, job.status.run
    assert result.base is not None
    assert result.run_key is not None
    same = previous is not None and previous.key == result.run_key
    run = Run(
        key=result.run_key,
        number=previous.number + 1 if previous else 1,
        stage=spec_key(job),
        generation=job.metadata.generation,
        started_at=now.replace(microsecond=0),
        rerun=_token(job),
        attempt=_last_attempt(draft, previous) if previous and same else 0,
        previous=previous.previous if previous and same else gates.previous_of(draft, result.run_key),
        measuring=previous.measuring if previous and same else [],
        inputs=ResolvedInputs(
            dataset=resolved.dataset.digest,
            dataset_uri=resolved.dataset.uri,
            base=result.base.digest,
            base_uri=result.base.uri,
            base_revision=result.revision,
            others=[
                OtherInput(part=part, digest=other.digest, uri=other.uri)
                for part, other in resolved.upstream.others.items()
            ],
        ),
    )
    if not same:
        if previous is not None and draft.record_of(previous) is None:
            record.cancel(draft, previous, run, now)
        draft.forget_attempts()
    draft.reopen(run)
    if result.outcome:
        record.adopt(draft, run, result.outcome)
    return run


def _last_attempt(draft: Draft, run: Run) -> int:
    """The attempt that was started last; one whose Job is gone was looked up by the stage Job just now."""
    started = [entry.number for entry in numbered(draft.observed.of("Job"), training.ROLE, run.key)]
    return max(draft.latched(), *started) if started else draft.latched()


def _hash(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
