"""adapterMode: Merged: the adapter and its base become one model, once, before any pod of theirs starts.

The merged model is named by what it is made of, so a restart, another deployment of the same pair, or a MergedModel
export of the adapter's job on the same base make nothing twice: the Job finds it in the store.
"""

from finetune_contract.base import StoredReference
from finetune_contract.exporting import ExportResult, MergePlan
from finetune_contract.serving import ServedAdapter
from finetune_operator.api.modeldeployment import MergedModel
from finetune_operator.manifests import merging, storage
from finetune_operator.reconcile import oneshot
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import missing_claim, seconds_until, to_create, with_plan
from finetune_operator.reconcile.servedbase import Pass, pending_message

MERGING = "Merging"


def find_merged(this: Pass, base: StoredReference, adapters: tuple[ServedAdapter, ...]) -> StoredReference | None:
    """The whole model; None while it is being made, or cannot be, with the conditions saying so."""
    if not adapters:
        this.conditions.waiting("AdapterPending", pending_message(this))
        return None
    metadata = this.deployment.metadata
    plan = MergePlan(
        name=metadata.name,
        namespace=metadata.namespace,
        base=base,
        artifact=adapters[0].artifact,
        **dict(storage.plan_of(this.observed.settings)),
    )
    this.merge_key = plan.key
    known = this.deployment.status.merged
    if known is None or (known.base, known.adapter) != (plan.base.digest, plan.artifact.digest):
        known = _merge(this, plan)
    this.merged = known
    return StoredReference(digest=known.digest, uri=known.uri) if known else None


def _merge(this: Pass, plan: MergePlan) -> MergedModel | None:
    """Run the Job, as far as that is to be done now."""
    metadata, what = this.deployment.metadata, f"merging {plan.artifact.digest} into {plan.base.digest}"
    latched = this.deployment.status.merge_failure
    state = oneshot.state_of(
        this.observed,
        merging.ROLE,
        plan.key,
        parse=ExportResult.model_validate_json,
        failure_in=lambda result: result.failure,
        latched=latched,
        generation=metadata.generation,
        now=this.now,
    )
    match state:
        case oneshot.Done(result):
            return MergedModel(
                base=plan.base.digest,
                adapter=plan.artifact.digest,
                digest=result.digest,
                uri=result.uri,
                difference=result.difference,
            )
        case oneshot.GivenUp(failure):
            if latched != failure:
                this.events.append(Event("Warning", failure.reason, failure.message[:1000]))
            this.merge_failure = failure
            this.conditions.stalled(failure.reason, oneshot.explain(failure))
        case oneshot.Outdated(job):
            this.delete += with_plan(this.observed, job)
            this.conditions.waiting(MERGING, "starting again as the edited spec says")
        case oneshot.Working() as working:
            this.merge_failure = working.failure
            this.wake_after = seconds_until([working.until], this.now)
            this.conditions.waiting(*working.condition(MERGING, what))
        case oneshot.Wanted() as wanted:
            this.merge_failure = wanted.failure
            this.conditions.waiting(MERGING, what)
            this.wake_after = oneshot.wait_for(wanted, this.now)
            if oneshot.is_due(wanted, this.now):
                build = merging.build(this.deployment, plan, wanted.number, this.observed.settings)
                wishes = missing_claim(this.observed, metadata.namespace) + build
                this.create, delete = to_create(this.observed, wishes, metadata.generation)
                this.delete += delete
    return None
