"""What becomes of a ModelDeployment: base and adapters are found, a Deployment serves them, each pod proves itself.

An adapter that is not there yet does not keep the others from being served; one whose job was deleted stays served.
"""

from datetime import datetime

from finetune_contract.base import StoredReference
from finetune_contract.results import ArtifactType
from finetune_contract.serving import ServedAdapter
from finetune_operator.api.modeldeployment import (
    AdapterState,
    AdapterStatus,
    ModelDeployment,
    ModelDeploymentStatus,
    ServedAdapterSpec,
    ServedBase,
)
from finetune_operator.manifests import serving
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import rollout
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.endings import name_of
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import Outcome
from finetune_operator.reconcile.resources import (
    ACCEPTED,
    is_deleted,
    note_denials,
    read,
    stale_children,
)
from finetune_operator.reconcile.servedbase import ADAPTERS_VALID, Pass, find_base, fits, pending_message
from finetune_operator.reconcile.storage import claim_of, in_another_store, note_one_node
from finetune_operator.settings import Settings

AVAILABLE = "Available"


def references(raw: Manifest, settings: Settings) -> tuple[Reference, ...]:
    """The store's claim, the adapters' jobs, and what the base model comes from."""
    spec = raw.get("spec") or {}
    base = spec.get("baseModel") or {}
    names = [adapter["fineTuneJob"]["name"] for adapter in spec.get("adapters") or ()]
    if "fineTuneJob" in base:
        names.append(base["fineTuneJob"]["name"])
    jobs_ = [Reference("FineTuneJob", name) for name in dict.fromkeys(names)]
    return (*claim_of(settings), *jobs_)


def reconcile(raw: Manifest, observed: Observed, now: datetime) -> Outcome:
    """Bring the ModelDeployment one pass further."""
    deployment = read(ModelDeployment, raw, now)
    if isinstance(deployment, Outcome):
        return deployment
    if is_deleted(raw):
        return Outcome()
    conditions = ConditionSet(deployment.status.conditions, deployment.metadata.generation, now)
    conditions.set(ACCEPTED, True, "Accepted")
    this = Pass(deployment, observed, now, conditions, base=deployment.status.base)
    this.stage_failure = deployment.status.stage_failure
    _find_adapters(this)
    find_base(this)
    if this.base and fits(this, this.base) and not _is_elsewhere(this, this.base):
        _serve(this, this.base)
    return _outcome(this)


def _is_elsewhere(this: Pass, base: ServedBase) -> bool:
    """Whether something is in another store than the deployment's, with the conditions saying so."""
    things = {
        f"adapter {adapter.name!r}": StoredReference(digest=adapter.digest, uri=adapter.uri)
        for adapter in this.adapters
        if adapter.digest and adapter.uri
    }
    things["base model"] = StoredReference(digest=base.digest, uri=base.uri)
    message = in_another_store(this.observed.settings, things)
    if message:
        this.conditions.set(ADAPTERS_VALID, False, "StorageMismatch", message)
        this.conditions.stalled("StorageMismatch", message)
    return message is not None


def _find_adapters(this: Pass) -> None:
    known = {(status.name, status.fine_tune_job): status for status in this.deployment.status.adapters}
    for wanted in this.deployment.spec.adapters:
        this.adapters.append(_find_adapter(this, wanted, known.get((wanted.name, wanted.fine_tune_job.name))))
    missing = [adapter for adapter in this.adapters if adapter.digest is None]
    if missing:
        message = "; ".join(f"{adapter.name}: {adapter.message}" for adapter in missing)
        this.conditions.set(ADAPTERS_VALID, False, "AdapterPending", message)
    else:
        this.conditions.set(ADAPTERS_VALID, True, "Valid", f"{len(this.adapters)} adapters")


def _find_adapter(this: Pass, wanted: ServedAdapterSpec, known: AdapterStatus | None) -> AdapterStatus:
    """The newest artifact of the adapter's job, or the one that is served already if the job is gone."""
    name = wanted.fine_tune_job.name
    job = this.observed.references.get(Reference("FineTuneJob", name))
    artifact = ((job or {}).get("status") or {}).get("artifact")
    if artifact and artifact["type"] == ArtifactType.ADAPTER.value:
        found = AdapterStatus(
            name=wanted.name,
            state=AdapterState.LOADING,
            fine_tune_job=name,
            digest=artifact["digest"],
            uri=artifact["uri"],
            base=artifact["base"],
        )
    elif known and known.digest:
        found = known
    else:
        message = _why_pending(name, job, artifact)
        return AdapterStatus(name=wanted.name, state=AdapterState.PENDING, fine_tune_job=name, message=message)
    if found.base:
        this.bases[found.base.digest] = StoredReference(digest=found.base.digest, uri=found.base.uri)
    return found


def _why_pending(name: str, job: Manifest | None, artifact: Manifest | None) -> str:
    if job is None:
        return f"there is no FineTuneJob {name!r}; create it, or name another"
    if artifact and artifact["type"] == ArtifactType.REWARD_MODEL.value:
        return f"FineTuneJob {name!r} made a reward model, which scores answers and writes none; name another"
    if artifact:
        return f"FineTuneJob {name!r} made a whole model; serve it as spec.baseModel.fineTuneJob instead"
    phase = (job.get("status") or {}).get("phase", "Pending")
    return f"FineTuneJob {name!r} has no artifact yet ({phase})"


def _serve(this: Pass, base: ServedBase) -> None:
    """Keep a Deployment with everything that is there, and say how far it is."""
    adapters = tuple(
        ServedAdapter(name=adapter.name, artifact=StoredReference(digest=adapter.digest, uri=adapter.uri))
        for adapter in this.adapters
        if adapter.digest and adapter.uri
    )
    reference = StoredReference(digest=base.digest, uri=base.uri)
    plan = serving.plan_config_map(
        this.deployment, serving.plan(this.deployment, reference, adapters, this.observed.settings)
    )
    config_map = name_of(plan)
    if not any(name_of(item) == config_map for item in this.observed.of("ConfigMap")):
        this.create += (plan,)
    this.apply = serving.build(this.deployment, config_map, this.observed.settings)
    _judge(this, config_map)


def _judge(this: Pass, config_map: str) -> None:
    """Whether every wanted pod serves the present plan, proven."""
    child_deployment = rollout.child_of(this.deployment, this.observed)
    done = child_deployment is not None and rollout.is_done(child_deployment, config_map, this.deployment)
    ready = rollout.ready_replicas(child_deployment)
    state = AdapterState.SERVING if done and ready else AdapterState.LOADING
    this.adapters = [
        adapter.model_copy(update={"state": state, "message": ""}) if adapter.digest else adapter
        for adapter in this.adapters
    ]
    this.conditions.set(AVAILABLE, ready > 0, "PodsReady" if ready else "NoPodReady", f"{ready} pods are ready")
    if not done:
        hindrance = rollout.hindrance(this.observed)
        this.conditions.waiting(hindrance.reason, hindrance.advice)
    elif all(adapter.digest for adapter in this.adapters):
        this.conditions.ready("Serving", f"{len(this.adapters)} adapters proven on {ready} pods")
        this.delete += rollout.old_plans(this.observed, config_map)
    else:
        this.conditions.waiting("AdapterPending", pending_message(this))


def _outcome(this: Pass) -> Outcome:
    item = rollout.child_of(this.deployment, this.observed)
    served = bool(this.apply)
    note_denials(this.conditions, this.observed)
    note_one_node(this.conditions, this.observed)
    status = ModelDeploymentStatus.model_validate(
        {
            "observed_generation": this.deployment.metadata.generation,
            "conditions": this.conditions.to_list(),
            "phase": _phase(this.conditions),
            "url": serving.url(this.deployment) if served else this.deployment.status.url,
            "base": this.base,
            "stage_failure": this.stage_failure,
            "adapters": this.adapters,
            "replicas": int(((item or {}).get("status") or {}).get("replicas", 0)),
            "ready_replicas": rollout.ready_replicas(item),
            "selector": ",".join(f"{key}={value}" for key, value in serving.selector(this.deployment).items()),
        }
    )
    return Outcome(
        create=this.create,
        apply=this.apply,
        status=status.to_dict(),
        delete=this.delete + stale_children(this.observed, this.is_present),
        events=tuple(this.events),
        wake_after=this.wake_after,
    )


def _phase(conditions: ConditionSet) -> str:
    if conditions.holds("Ready"):
        return "Serving"
    if conditions.holds("Stalled"):
        return "Failed"
    return "Updating" if conditions.holds(AVAILABLE) else "Starting"
