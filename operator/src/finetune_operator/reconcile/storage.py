"""What the claim that a namespace really has means for its pods: it may be older than the settings, or made by hand."""

from collections.abc import Mapping

from finetune_operator.manifests.naming import Manifest
from finetune_operator.manifests.storage import MANY_NODES
from finetune_operator.reconcile.conditions import READY, ConditionSet
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.settings import Settings


def claim_among(references: Mapping[Reference, Manifest | None], settings: Settings) -> Manifest | None:
    """The namespace's claim, if it is there."""
    return references.get(Reference("PersistentVolumeClaim", settings.claim_name))


def settings_for(settings: Settings, claim: Manifest | None) -> Settings:
    """The settings with the access mode of the claim that is there."""
    modes = ((claim or {}).get("spec") or {}).get("accessModes") or ()
    mode = MANY_NODES if MANY_NODES in modes else next(iter(modes), settings.claim_access_mode)
    return settings if mode == settings.claim_access_mode else settings.model_copy(update={"claim_access_mode": mode})


def refuses_many_nodes(claim: Manifest | None, settings: Settings) -> str | None:
    """Why pods on several nodes cannot share the claim (a StorageUnavailable message); None where they can."""
    mode = settings_for(settings, claim).claim_access_mode
    if mode == MANY_NODES:
        return None
    return (
        f"claim {settings.claim_name} is {mode}: only pods on one node can use it; ask for one node, or give the "
        f"namespace a {MANY_NODES} claim of that name (chart value storage.accessMode)"
    )


_AFFINITY = "didn't match pod affinity rules"
"""The scheduler's words (interpodaffinity's ErrReasonAffinityRulesNotMatch)."""


def note_one_node(conditions: ConditionSet, observed: Observed) -> None:
    """Say why a pod may run on one node only, where the scheduler has found no room there."""
    settings = observed.settings
    reason, message = conditions.said(READY)
    hint = f"(claim {settings.claim_name} is {settings.claim_access_mode}: pods run on the node where it is in use)"
    if settings.claim_access_mode != MANY_NODES and _AFFINITY in message and hint not in message:
        conditions.waiting(reason, f"{message} {hint}")
