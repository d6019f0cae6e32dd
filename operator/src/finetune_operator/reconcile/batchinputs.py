"""What the names in a BatchInference's spec stand for: model, adapter, rows. Looked up once, and latched."""

import hashlib
import json
from dataclasses import dataclass

from finetune_contract.base import StoredReference
from finetune_contract.results import ArtifactType, StageResult
from finetune_operator.api.gate import Verdict
from finetune_operator.manifests import jobs, staging
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import oneshot, trusted
from finetune_operator.reconcile.batchdraft import INPUT_READY, MODEL_READY, BatchDraft
from finetune_operator.reconcile.draft import GATE_FAILED
from finetune_operator.reconcile.observed import Reference
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import ready_message, seconds_until, with_plan
from finetune_operator.reconcile.storage import in_another_store

SOURCE_POLL_SECONDS = 5.0
"""How often a claim or ConfigMap that is not there yet is looked for."""


@dataclass(frozen=True)
class Resolved:
    """A finished look-up."""

    base: StoredReference
    adapter: StoredReference | None = None
    dataset: StoredReference | None = None
    verdict: Verdict | None = None
    gate_ignored: bool = False


def references(spec: Manifest) -> tuple[Reference, ...]:
    """What the spec names, beside the store."""
    model, wanted = spec.get("model") or {}, spec.get("input") or {}
    files = wanted.get("jsonl") or {}
    found = []
    if "fineTuneJob" in model:
        found.append(Reference("FineTuneJob", model["fineTuneJob"]["name"]))
    if "dataset" in wanted:
        found.append(Reference("Dataset", wanted["dataset"]["name"]))
    sources = (model.get("baseModel") or {}, files)
    claims = [source["persistentVolumeClaim"]["claimName"] for source in sources if "persistentVolumeClaim" in source]
    found += [Reference("PersistentVolumeClaim", claim) for claim in claims]
    if "configMap" in files:
        found.append(Reference("ConfigMap", files["configMap"]["name"]))
    return tuple(dict.fromkeys(found))


def resolve(draft: BatchDraft) -> Resolved | None:
    """What the spec stands for; None while that is not known, with the conditions saying why."""
    model = _by_job(draft) if draft.batch.spec.model.fine_tune_job else _staged(draft)
    if model is None:
        return None
    draft.conditions.set(MODEL_READY, True, "Resolved", f"{(model.adapter or model.base).digest}")
    if _file_source_missing(draft):
        return None
    if draft.batch.spec.input.dataset is None:
        return model if not _is_elsewhere(draft, model) else None
    revision = _revision(draft)
    if revision is None:
        return None
    whole = Resolved(model.base, model.adapter, revision, model.verdict, model.gate_ignored)
    return whole if not _is_elsewhere(draft, whole) else None


def _by_job(draft: BatchDraft) -> Resolved | None:
    """What a FineTuneJob has made, if its gate lets it through."""
    spec = draft.batch.spec
    assert spec.model.fine_tune_job is not None
    name, path = spec.model.fine_tune_job.name, "spec.model.fineTuneJob.name"
    job = draft.observed.references.get(Reference("FineTuneJob", name))
    if job is None:
        return _waits(draft, "ModelNotFound", f"{path}: there is no FineTuneJob {name!r}; create it, or name another")
    wanted = spec.model.digest
    artifact = trusted.pinned(job, wanted) if wanted else trusted.newest(job, ignore_gate=spec.ignore_gate)
    if artifact is None and wanted and (made := trusted.known_digests(job)):
        message = f"spec.model.digest: FineTuneJob {name!r} tells of no artifact {wanted}; it made {', '.join(made)}"
        return _refuse(draft, "ModelNotFound", message)
    if artifact is None:
        return _waits(draft, "ModelNotReady", f"FineTuneJob {name!r} has no artifact yet: {ready_message(job)}")
    if artifact["type"] == ArtifactType.REWARD_MODEL.value:
        message = (
            f"{path}: FineTuneJob {name!r} made a reward model, which scores answers and writes none; name another"
        )
        return _refuse(draft, "ModelUnfit", message)
    refused = trusted.refusal(job, artifact)
    if refused and not spec.ignore_gate:
        say = _refuse if refused.is_final else _waits
        return say(draft, GATE_FAILED if refused.is_final else "ModelNotReady", f"{path}: {refused.message}")
    made_of = StoredReference(digest=artifact["digest"], uri=artifact["uri"])
    is_adapter = artifact["type"] == ArtifactType.ADAPTER.value
    base = StoredReference(digest=artifact["base"]["digest"], uri=artifact["base"]["uri"]) if is_adapter else made_of
    verdict = Verdict(artifact["verdict"]) if artifact.get("verdict") else None
    return Resolved(base, made_of if is_adapter else None, None, verdict, refused is not None)


def _staged(draft: BatchDraft) -> Resolved | None:
    """The model of spec.model.baseModel, brought into the store."""
    spec, metadata = draft.batch.spec, draft.batch.metadata
    assert spec.model.base_model is not None
    source = spec.model.base_model
    if source.fine_tune_job:  # an API server without the rule of the CRD lets it through
        message = "spec.model.baseModel.fineTuneJob: what a job has made is named by spec.model.fineTuneJob"
        return _refuse(draft, "InvalidSpec", message)
    claim = source.persistent_volume_claim
    if claim and not draft.observed.references.get(Reference("PersistentVolumeClaim", claim.claim_name)):
        path = "spec.model.baseModel.persistentVolumeClaim.claimName"
        draft.wake(SOURCE_POLL_SECONDS)
        return _waits(draft, "SourceNotFound", f"{path}: there is no PersistentVolumeClaim {claim.claim_name!r}")
    document = [source.model_dump(mode="json", by_alias=True, exclude_defaults=True), spec.rerun]
    key = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
    draft.stage_run = key[:16]
    state = oneshot.state_of(
        draft.observed,
        staging.ROLE,
        key,
        parse=StageResult.from_message,
        failure_in=lambda result: result.failure,
        latched=draft.batch.status.stage_failure,
        generation=metadata.generation,
        now=draft.now,
    )
    match state:
        case oneshot.Done(result):
            assert result.base is not None
            draft.stage_failure = None
            return Resolved(result.base)
        case oneshot.GivenUp(failure):
            if draft.stage_failure != failure:
                draft.events.append(Event("Warning", failure.reason, failure.message[:1000]))
            draft.stage_failure = failure
            return _refuse(draft, failure.reason, f"spec.model.baseModel: {oneshot.explain(failure)}")
        case oneshot.Outdated(job):
            draft.delete += with_plan(draft.observed, job)
            return _waits(draft, "Staging", "starting again as the edited spec says")
        case oneshot.Working() as working:
            draft.stage_failure = working.failure
            draft.wake(seconds_until([working.until], draft.now))
            return _waits(draft, *working.condition("Staging", "bringing the model into the store"))
        case oneshot.Wanted() as wanted:
            draft.stage_failure = wanted.failure
            draft.wake(oneshot.wait_for(wanted, draft.now))
            if oneshot.is_due(wanted, draft.now):
                draft.make(
                    staging.build(
                        jobs.owner_of("BatchInference", metadata),
                        source,
                        key=key,
                        number=wanted.number,
                        stored=None,
                        run=None,
                        scheduling=spec.scheduling,
                        template=spec.pod_template,
                        settings=draft.observed.settings,
                    )
                )
            return _waits(draft, "Staging", "bringing the model into the store")


def _file_source_missing(draft: BatchDraft) -> bool:
    """Whether the claim or ConfigMap of the files is not there, with the conditions saying so."""
    files = draft.batch.spec.input.jsonl
    wanted: Reference | None = None
    if files and files.persistent_volume_claim:
        wanted = Reference("PersistentVolumeClaim", files.persistent_volume_claim.claim_name)
    elif files and files.config_map:
        wanted = Reference("ConfigMap", files.config_map.name)
    if wanted is None or draft.observed.references.get(wanted):
        if files:
            draft.conditions.set(INPUT_READY, True, "Resolved", "files, which the pod reads")
        return False
    path = f"spec.input.jsonl.{wanted.kind[0].lower()}{wanted.kind[1:]}"
    _input_waits(draft, "SourceNotFound", f"{path}: there is no {wanted.kind} {wanted.name!r}; create it")
    draft.wake(SOURCE_POLL_SECONDS)
    return True


def _revision(draft: BatchDraft) -> StoredReference | None:
    wanted = draft.batch.spec.input.dataset
    assert wanted is not None
    dataset = draft.observed.references.get(Reference("Dataset", wanted.name))
    if dataset is None:
        _input_waits(
            draft, "DatasetNotFound", f"spec.input.dataset.name: there is no Dataset {wanted.name!r}; create it"
        )
        return None
    revision = (dataset.get("status") or {}).get("revision")
    if revision is None:
        message = f"Dataset {wanted.name!r} has no revision yet: {ready_message(dataset)}"
        _input_waits(draft, "DatasetNotReady", message)
        return None
    splits = {each["name"]: int(each["rows"]) for each in revision.get("splits") or ()}
    if splits and not splits.get(wanted.split):
        message = (
            f"spec.input.dataset.split: Dataset {wanted.name!r} has no {wanted.split} rows; "
            f"it has {', '.join(name for name, rows in splits.items() if rows)}"
        )
        draft.conditions.set(INPUT_READY, False, "SplitNotFound", message)
        draft.conditions.stalled("SplitNotFound", message)
        return None
    draft.conditions.set(INPUT_READY, True, "Resolved", f"revision {revision['digest']}")
    return StoredReference(digest=revision["digest"], uri=revision["uri"])


def _is_elsewhere(draft: BatchDraft, found: Resolved) -> bool:
    """Whether something is in another store than the object's, with the conditions saying so."""
    things = {"model": found.base}
    if found.adapter:
        things["adapter"] = found.adapter
    if found.dataset:
        things["Dataset's revision"] = found.dataset
    message = in_another_store(draft.observed.settings, things)
    if message:
        draft.conditions.set(INPUT_READY, False, "StorageMismatch", message)
        draft.conditions.stalled("StorageMismatch", message)
    return message is not None


def _input_waits(draft: BatchDraft, reason: str, message: str) -> None:
    draft.conditions.set(INPUT_READY, False, reason, message)
    draft.conditions.waiting(reason, message)


def _waits(draft: BatchDraft, reason: str, message: str) -> Resolved | None:
    """Nothing is resolved yet, with the conditions saying why."""
    draft.conditions.set(MODEL_READY, False, reason, message)
    draft.conditions.waiting(reason, message)
    return None


def _refuse(draft: BatchDraft, reason: str, message: str) -> Resolved | None:
    """Nothing is resolved until somebody does something, with the conditions saying what."""
    is_new = draft.conditions.said(MODEL_READY) != (reason, message[:2048])
    draft.conditions.set(MODEL_READY, False, reason, message)
    draft.conditions.stalled(reason, message)
    if is_new and reason == GATE_FAILED:
        draft.events.append(Event("Warning", reason, message[:1000]))
    return None
