"""The base model that a ModelDeployment serves: staged from spec.baseModel, or what its adapters were trained from."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime

from finetune_contract.adapterfacts import AdapterFacts
from finetune_contract.base import StoredReference
from finetune_contract.results import ArtifactType, StageResult
from finetune_operator.api.adapterfacts import AdapterFactsStatus
from finetune_operator.api.base import JobFailure
from finetune_operator.api.modeldeployment import AdapterStatus, MergedModel, ModelDeployment, ServedBase
from finetune_operator.api.rollout import RolloutStatus
from finetune_operator.manifests import jobs, merging, staging
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import oneshot, trusted
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName, Event
from finetune_operator.reconcile.resources import missing_claim, seconds_until, to_create, with_plan

ADAPTERS_VALID = "AdaptersValid"


@dataclass
class Pass:
    """What one pass has found out so far."""

    deployment: ModelDeployment
    observed: Observed
    now: datetime
    conditions: ConditionSet
    adapters: list[AdapterStatus] = field(default_factory=list)
    bases: dict[str, StoredReference] = field(default_factory=dict)
    """Base digest -> base, of the adapters that are there."""
    refusals: list[str] = field(default_factory=list)
    """What a gate keeps from being served, until somebody does something."""
    base: ServedBase | None = None
    stage_key: str = ""
    """Names the staging of spec.baseModel; empty where it is not needed or not known yet."""
    stage_failure: object = None
    merged: MergedModel | None = None
    """Of adapterMode: Merged: the whole model."""
    rollout: RolloutStatus | None = None
    extras: list[str] = field(default_factory=list)
    """Kinds of what is kept beside Deployment and Service."""
    merge_key: str = ""
    """Names the merging of the wanted adapter and base; empty where there is none."""
    merge_failure: JobFailure | None = None
    create: tuple[Manifest, ...] = ()
    apply: tuple[Manifest, ...] = ()
    delete: tuple[ChildName, ...] = ()
    events: list[Event] = field(default_factory=list)
    wake_after: float | None = None

    def is_present(self, role: str, run: str) -> bool:
        """Whether a child is not left over from the staging of another base model, or another merging."""
        keys = {staging.ROLE: self.stage_key, merging.ROLE: self.merge_key}
        return role not in keys or run == keys[role][:16]


def find_base(this: Pass) -> None:
    """The base that spec.baseModel names, or the one that the adapters were trained from."""
    if this.deployment.spec.base_model is not None:
        _stage_base(this)
        return
    this.stage_failure = None
    if len(this.bases) == 1:
        base = next(iter(this.bases.values()))
        this.base = ServedBase(digest=base.digest, uri=base.uri)
    elif len(this.bases) > 1:
        message = "the adapters were trained from different base models; deploy them apart: " + ", ".join(
            sorted(this.bases)
        )
        this.conditions.set(ADAPTERS_VALID, False, "BaseMismatch", message)
        this.conditions.stalled("BaseMismatch", message)
        this.base = None
    elif this.base is None:
        this.conditions.waiting("AdapterPending", pending_message(this))


def pending_message(this: Pass) -> str:
    """What the adapters that are not there wait for."""
    return "; ".join(f"{adapter.name}: {adapter.message}" for adapter in this.adapters if adapter.message)


def _stage_base(this: Pass) -> None:
    base_model = this.deployment.spec.base_model
    assert base_model is not None
    stored = ignored = None
    if base_model.fine_tune_job:
        found = _model_of(this, base_model.fine_tune_job.name)
        if found is None:
            return
        stored, ignored = found
    document: list[object] = [
        base_model.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        stored and stored.digest,
    ]
    # They are described together with the base: what they say depends on it.
    document += [[adapter.name, adapter.digest, adapter.uri] for adapter in _by_address(this)]
    key = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
    this.stage_key = key
    if this.base and this.base.stage == key:
        return
    this.base = None
    _run_stage(this, key, stored, gate_ignored=bool(ignored))


def _by_address(this: Pass) -> list[AdapterStatus]:
    """Adapters that no FineTuneJob describes, in the spec's order."""
    return [each for each in this.adapters if each.fine_tune_job is None and each.digest and each.uri]


def _describe(this: Pass, facts: tuple[AdapterFacts, ...]) -> None:
    """Take over what the stage pod has read of the adapters."""
    known = {adapter.name: said for adapter, said in zip(_by_address(this), facts, strict=False)}
    this.adapters = [
        each.model_copy(update={"adapter": AdapterFactsStatus.of(known[each.name])}) if each.name in known else each
        for each in this.adapters
    ]


def _model_of(this: Pass, name: str) -> tuple[StoredReference, bool] | None:
    """The whole model that a job made, and whether that is against its gate; None while there is none to serve."""
    path = "spec.baseModel.fineTuneJob.name"
    ignore = this.deployment.spec.ignore_gate
    job = this.observed.references.get(Reference("FineTuneJob", name))
    artifact = trusted.newest(job, ignore_gate=ignore)
    if this.base and this.base.gate_ignored and not ignore:
        this.base = None
    if artifact is None or artifact["type"] != ArtifactType.MODEL.value:
        if this.base is None:
            is_reward = artifact and artifact["type"] == ArtifactType.REWARD_MODEL.value
            has = "a reward model, which writes no answers" if is_reward else "no model artifact"
            this.conditions.waiting("BaseNotReady", f"{path}: FineTuneJob {name!r} has {has}")
        return None
    refused = trusted.refusal(job, artifact)
    is_served = this.base is not None and this.base.digest == artifact["digest"]
    if refused and not ignore and not is_served:
        if refused.is_final:
            this.refusals.append(f"{path}: {refused.message}")
        if this.base is None:
            this.conditions.waiting("BaseNotReady", f"{path}: {refused.message}")
        return None
    stored = StoredReference(digest=artifact["digest"], uri=artifact["uri"])
    return stored, refused is not None and not is_served


def _run_stage(this: Pass, key: str, stored: StoredReference | None, *, gate_ignored: bool) -> None:
    deployment = this.deployment
    metadata = deployment.metadata
    state = oneshot.state_of(
        this.observed,
        staging.ROLE,
        key,
        parse=StageResult.from_message,
        failure_in=lambda result: result.failure,
        latched=deployment.status.stage_failure,
        generation=metadata.generation,
        now=this.now,
    )
    match state:
        case oneshot.Done(result):
            assert result.base is not None
            this.base = ServedBase(digest=result.base.digest, uri=result.base.uri, stage=key, gate_ignored=gate_ignored)
            this.stage_failure = None
            _describe(this, result.adapters)
        case oneshot.GivenUp(failure):
            if this.stage_failure != failure:
                this.events.append(Event("Warning", failure.reason, failure.message))
            this.stage_failure = failure
            this.conditions.stalled(failure.reason, oneshot.explain(failure))
        case oneshot.Outdated(job):
            this.delete += with_plan(this.observed, job)
            this.conditions.waiting("Staging", "starting again as the edited spec says")
        case oneshot.Working() as working:
            this.stage_failure = working.failure
            this.wake_after = seconds_until([working.until], this.now)
            this.conditions.waiting(*working.condition("Staging", "staging the base model"))
        case oneshot.Wanted() as wanted:
            this.stage_failure = wanted.failure
            this.conditions.waiting("Staging", "staging the base model")
            this.wake_after = oneshot.wait_for(wanted, this.now)
            if oneshot.is_due(wanted, this.now):
                wishes = missing_claim(this.observed, metadata.namespace) + _stage_job(this, key, wanted.number, stored)
                this.create, delete = to_create(this.observed, wishes, metadata.generation)
                this.delete += delete


def _stage_job(this: Pass, key: str, number: int, stored: StoredReference | None) -> tuple[Manifest, ...]:
    deployment = this.deployment
    assert deployment.spec.base_model is not None
    return staging.build(
        jobs.owner_of("ModelDeployment", deployment.metadata),
        deployment.spec.base_model,
        key=key,
        number=number,
        stored=stored,
        run=None,
        adapters=tuple(StoredReference(digest=each.digest, uri=each.uri) for each in _by_address(this)),
        scheduling=deployment.spec.scheduling,
        template=deployment.spec.pod_template,
        settings=this.observed.settings,
    )


def fits(this: Pass, base: ServedBase) -> bool:
    """Whether the adapters were trained from the base."""
    wrong = sorted(digest for digest in this.bases if digest != base.digest)
    if not wrong:
        return True
    message = f"spec.baseModel is {base.digest}, but adapters were trained from {', '.join(wrong)}; leave baseModel out"
    this.conditions.set(ADAPTERS_VALID, False, "BaseMismatch", message)
    this.conditions.stalled("BaseMismatch", message)
    return False
