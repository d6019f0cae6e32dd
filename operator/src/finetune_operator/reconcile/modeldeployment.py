"""What becomes of a ModelDeployment: base and adapters are found, a Deployment serves them, each pod proves itself.

An adapter that is not there yet does not keep the others from being served; one whose job was deleted stays served.
"""

from collections.abc import Mapping
from datetime import datetime

from finetune_contract.base import StoredReference
from finetune_contract.proof import AdapterProof
from finetune_contract.serving import ServedAdapter
from finetune_operator.api.modeldeployment import (
    AdapterMode,
    AdapterState,
    AdapterStatus,
    ModelDeployment,
    ModelDeploymentStatus,
    ServedBase,
)
from finetune_operator.manifests import serving
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import canary, extras, rollout
from finetune_operator.reconcile.canary import Course
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.draft import GATE_FAILED
from finetune_operator.reconcile.enginefit import suits
from finetune_operator.reconcile.mergedmodel import find_merged
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import Outcome
from finetune_operator.reconcile.resources import (
    ACCEPTED,
    is_deleted,
    note_denials,
    read,
    stale_children,
)
from finetune_operator.reconcile.revisions import put, revision_of
from finetune_operator.reconcile.servedadapters import find_adapters, note_gates
from finetune_operator.reconcile.servedbase import ADAPTERS_VALID, Pass, find_base, fits, pending_message
from finetune_operator.reconcile.storage import in_another_store, note_one_node, store_reference
from finetune_operator.reconcile.words import count
from finetune_operator.settings import Settings

AVAILABLE = "Available"


def references(raw: Manifest, settings: Settings) -> tuple[Reference, ...]:
    """The store's claim, the adapters' jobs, and what the base model comes from."""
    spec = raw.get("spec") or {}
    base = spec.get("baseModel") or {}
    names = [adapter["fineTuneJob"]["name"] for adapter in spec.get("adapters") or () if "fineTuneJob" in adapter]
    if "fineTuneJob" in base:
        names.append(base["fineTuneJob"]["name"])
    jobs_ = [Reference("FineTuneJob", name) for name in dict.fromkeys(names)]
    return (store_reference(settings), *jobs_, *extras.references(raw))


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
    this.rollout, this.extras = deployment.status.rollout, list(deployment.status.extras)
    find_adapters(this)
    find_base(this)
    if this.base and fits(this, this.base) and suits(this) and not _is_elsewhere(this, this.base):
        _serve(this, this.base)
    note_gates(this)
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


def _serve(this: Pass, base: ServedBase) -> None:
    """Keep a Deployment with everything that is there, and say how far it is; a merged model has to be made first."""
    adapters = tuple(
        ServedAdapter(name=adapter.name, artifact=StoredReference(digest=adapter.digest, uri=adapter.uri))
        for adapter in this.adapters
        if adapter.digest and adapter.uri
    )
    reference = StoredReference(digest=base.digest, uri=base.uri)
    merged = this.deployment.spec.adapter_mode is AdapterMode.MERGED
    if merged:
        whole = find_merged(this, reference, adapters)
        if whole is None:
            return
        reference = whole
    course = canary.course_of(this, revision_of(this.deployment, reference, this.adapters, merged=merged))
    plan = put(this, course.main, serving.MAIN)
    plans: tuple[str, ...] = (plan,)
    if course.canary:
        plans += (put(this, course.canary, serving.CANARY),)
    else:
        this.delete += rollout.left_over(this.observed, serving.CANARY)
    extras.keep(this)
    _judge(this, course, plans)


def _judge(this: Pass, course: Course, plans: tuple[str, ...]) -> None:
    """Whether every wanted pod serves the present plan, proven."""
    child_deployment = rollout.child_of(this.deployment, this.observed)
    done = rollout.is_done(child_deployment, plans[0], this.deployment)
    ready = rollout.ready_replicas(child_deployment)
    state = AdapterState.SERVING if done and ready else AdapterState.LOADING
    faults = {} if done else rollout.unproven(this.observed)
    served = {(each.name, each.digest) for each in course.main.adapters}
    this.adapters = [
        _judged(each, state, faults) if (each.name, each.digest) in served else _tried(each, course)
        for each in this.adapters
    ]
    if faulty := [each for each in this.adapters if each.state in (AdapterState.INERT, AdapterState.INVALID)]:
        words = "; ".join(f"adapter {each.name} is {each.state}: {each.message}" for each in faulty)
        this.conditions.set(ADAPTERS_VALID, False, f"Adapter{faulty[0].state}", words)
    words_of_pods = f"{count(ready, 'pod')} {'is' if ready == 1 else 'are'} ready"
    this.conditions.set(AVAILABLE, ready > 0, "PodsReady" if ready else "NoPodReady", words_of_pods)
    if done and ready:
        canary.latch(this, course.main)
    if faulty:
        this.conditions.stalled(f"Adapter{faulty[0].state}", words)
    elif canary.say(this, course):
        pass
    elif not done:
        hindrance = rollout.hindrance(this.observed)
        this.conditions.waiting(hindrance.reason, hindrance.advice)
    elif not any(adapter.message for adapter in this.adapters):
        this.conditions.ready("Serving", f"{count(len(this.adapters), 'adapter')} proven on {count(ready, 'pod')}")
    else:
        this.conditions.waiting("AdapterPending", pending_message(this))
    if done and not course.canary and not any(adapter.message for adapter in this.adapters):
        this.delete += rollout.old_plans(this.observed, *plans)


def _tried(adapter: AdapterStatus, course: Course) -> AdapterStatus:
    """The state of an artifact that only a canary serves, or did."""
    if adapter.digest is None or course.given_up is None:
        return adapter
    words = f"{course.given_up.reason}: {course.given_up.message}"[:1024]
    return adapter.model_copy(update={"state": AdapterState.ROLLED_BACK, "message": words})


def _judged(
    adapter: AdapterStatus, state: AdapterState, faults: Mapping[tuple[str, str], AdapterProof]
) -> AdapterStatus:
    """An adapter's state: the roll-out's, or what a prober found wrong with just this artifact."""
    if adapter.digest is None:
        return adapter
    fault = faults.get((adapter.name, adapter.digest))
    if fault is None:
        return adapter.model_copy(update={"state": state})
    return adapter.model_copy(update={"state": AdapterState(fault.state.value), "message": fault.message[:1024]})


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
            "merged": this.merged,
            "rollout": this.rollout,
            "extras": this.extras,
            "merge_failure": this.merge_failure,
            "adapters": [_dated(this, adapter) for adapter in this.adapters],
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


def _dated(this: Pass, adapter: AdapterStatus) -> AdapterStatus:
    """With the time at which it came into its state."""
    before = next((each for each in this.deployment.status.adapters if each.name == adapter.name), None)
    is_same = before is not None and (before.state, before.digest) == (adapter.state, adapter.digest)
    since = before.since if before and is_same and before.since else this.now.replace(microsecond=0)
    return adapter.model_copy(update={"since": since})


def _phase(conditions: ConditionSet) -> str:
    if conditions.holds("Ready"):
        return "Serving"
    if conditions.holds("Stalled"):
        reason = conditions.said("Ready")[0]
        return reason if reason in (GATE_FAILED, canary.ROLLED_BACK) else "Failed"
    if conditions.said("Ready")[0] == canary.CANARY:
        return canary.CANARY
    return "Updating" if conditions.holds(AVAILABLE) else "Starting"
