"""Route, disruption budget and autoscaler of a ModelDeployment: applied while the spec asks for them, then deleted.

They are looked up by name in every pass of a deployment that has or wants them, as nobody watches their kinds; status
remembers which there are.
"""

from finetune_operator.manifests import extras
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.observed import Reference
from finetune_operator.reconcile.resources import child
from finetune_operator.reconcile.servedbase import Pass


def references(raw: Manifest) -> tuple[Reference, ...]:
    """What there is, or is to be."""
    spec, status, name = raw.get("spec") or {}, raw.get("status") or {}, raw["metadata"]["name"]
    kinds = set(status.get("extras") or ())
    scaling = spec.get("autoscaling") or {}
    if spec.get("route"):
        kinds.add(extras.ROUTE)
    if scaling:
        kinds.add(extras.SCALED_OBJECT if scaling.get("keda") else extras.AUTOSCALER)
    if max(spec.get("replicas", 1), scaling.get("maxReplicas", 1)) > 1:
        kinds.add(extras.BUDGET)
    return tuple(Reference(kind, name) for kind in sorted(kinds))


def keep(this: Pass) -> None:
    """Apply what is wanted and delete what is not any more."""
    deployment = this.deployment
    trying = this.rollout.canary if this.rollout else None
    wanted = extras.build(deployment, is_canary_proven=bool(trying and trying.proven_at))
    this.apply += wanted
    kinds = {manifest["kind"] for manifest in wanted}
    for kind in set(this.extras) - kinds:
        found = this.observed.references.get(Reference(kind, deployment.metadata.name))
        owners = ((found or {}).get("metadata") or {}).get("ownerReferences") or ()
        if found and any(owner.get("uid") == deployment.metadata.uid for owner in owners):
            this.delete += (child(kind, found),)
            kinds.add(kind)
    this.extras = sorted(kinds)
