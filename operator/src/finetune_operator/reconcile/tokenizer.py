"""The base model whose tokenizer counts a Dataset's tokens: staged once, like that of a FineTuneJob."""

import hashlib
import json
from datetime import datetime
from typing import NamedTuple

from finetune_contract.base import StoredReference
from finetune_contract.results import ArtifactType, StageResult
from finetune_operator.api.base import JobFailure
from finetune_operator.api.cleaning import StagedTokenizer
from finetune_operator.api.dataset import Dataset
from finetune_operator.manifests import jobs, staging
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import oneshot
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName
from finetune_operator.reconcile.resources import missing_claim, seconds_until, to_create, with_plan


class Found(NamedTuple):
    """Where the tokenizer is, or what is to be done to get it."""

    staged: StagedTokenizer | None = None
    reason: str = "Staging"
    message: str = "staging spec.tokenizer"
    failure: JobFailure | None = None
    is_given_up: bool = False
    create: tuple[Manifest, ...] = ()
    delete: tuple[ChildName, ...] = ()
    wake_after: float | None = None


def upstream_of(spec: Manifest) -> tuple[Reference, ...]:
    """The FineTuneJob that made the base model."""
    name = ((spec.get("tokenizer") or {}).get("fineTuneJob") or {}).get("name")
    return (Reference("FineTuneJob", name),) if name else ()


def key_of(dataset: Dataset, observed: Observed) -> str:
    """Names the staging; empty where there is none."""
    if dataset.spec.tokenizer is None:
        return ""
    stored = _upstream(dataset, observed)
    document = [
        dataset.spec.tokenizer.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        stored.digest if stored else None,
    ]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def find(dataset: Dataset, observed: Observed, now: datetime) -> Found:
    """The tokenizer, or the next step towards it."""
    assert dataset.spec.tokenizer is not None
    known = dataset.status.tokenizer
    key = key_of(dataset, observed)
    if known and known.stage == key:
        return Found(known)
    stored = _upstream(dataset, observed)
    if dataset.spec.tokenizer.fine_tune_job and stored is None:
        name = dataset.spec.tokenizer.fine_tune_job.name
        message = f"spec.tokenizer.fineTuneJob.name: FineTuneJob {name!r} has no model yet; create it, or wait for it"
        return Found(reason="TokenizerNotReady", message=message)
    state = oneshot.state_of(
        observed,
        staging.ROLE,
        key,
        parse=StageResult.model_validate_json,
        failure_in=lambda result: result.failure,
        latched=dataset.status.failure,
        generation=dataset.metadata.generation,
        now=now,
    )
    match state:
        case oneshot.Done(result):
            assert result.base is not None
            return Found(StagedTokenizer(digest=result.base.digest, uri=result.base.uri, stage=key))
        case oneshot.GivenUp(failure):
            message = f"spec.tokenizer: {oneshot.explain(failure)}"
            return Found(reason=failure.reason, message=message, failure=failure, is_given_up=True)
        case oneshot.Outdated(job):
            return Found(failure=dataset.status.failure, delete=with_plan(observed, job))
        case oneshot.Working() as working:
            reason, message = working.condition("Staging", "staging spec.tokenizer")
            until = seconds_until([working.until], now)
            return Found(reason=reason, message=message, failure=working.failure, wake_after=until)
        case oneshot.Wanted(number) as wanted:
            found = Found(failure=wanted.failure, wake_after=oneshot.wait_for(wanted, now))
            if not oneshot.is_due(wanted, now):
                return found
            wishes = (*missing_claim(observed, dataset.metadata.namespace), *_job(dataset, observed, key, number))
            create, delete = to_create(observed, wishes, dataset.metadata.generation)
            return found._replace(create=create, delete=delete)


def _job(dataset: Dataset, observed: Observed, key: str, number: int) -> tuple[Manifest, ...]:
    assert dataset.spec.tokenizer is not None
    return staging.build(
        jobs.owner_of("Dataset", dataset.metadata),
        dataset.spec.tokenizer,
        key=key,
        number=number,
        stored=_upstream(dataset, observed),
        run=None,
        scheduling=dataset.spec.scheduling,
        template=dataset.spec.pod_template,
        settings=observed.settings,
    )


def _upstream(dataset: Dataset, observed: Observed) -> StoredReference | None:
    """The model that another job made, or the base of its adapter: an adapter has its base's tokenizer."""
    spec = dataset.spec.tokenizer
    if spec is None or spec.fine_tune_job is None:
        return None
    job = observed.references.get(Reference("FineTuneJob", spec.fine_tune_job.name))
    artifact = ((job or {}).get("status") or {}).get("artifact")
    if artifact is None:
        return None
    model = artifact["base"] if artifact["type"] == ArtifactType.ADAPTER.value else artifact
    return StoredReference(digest=model["digest"], uri=model["uri"])
