"""Which store an object has, and what the claim that is really there means for its pods.

An object's own `spec.storage` comes first, then where its status says that its things are, then the operator's
settings: so what was made before another default was set stays where it is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from finetune_contract.base import StoredReference
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.manifests.naming import ANNOTATION_STORE, Manifest
from finetune_operator.manifests.storage import MANY_NODES, record_name
from finetune_operator.reconcile.conditions import READY, ConditionSet
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.settings import Settings

_STORED = re.compile(r"(?P<store>(pvc|s3)://.+)/(datasets|models|artifacts|batches)/[0-9a-f]{64}")


def settings_of(settings: Settings, raw: Manifest) -> Settings:
    """The settings with the store of one object."""
    default = _with_namespace(settings, raw["metadata"]["namespace"])
    spec = (raw.get("spec") or {}).get("storage") or {}
    if "s3" in spec:
        return default.model_copy(update=_from_bucket(spec["s3"]))
    if "persistentVolumeClaim" in spec:
        return default.model_copy(update=_from_claim(spec["persistentVolumeClaim"], default))
    return _where_it_is(default, next(_addresses(raw.get("status") or {}), None))


def _with_namespace(settings: Settings, namespace: str) -> Settings:
    if settings.s3_uri is None:
        return settings
    return settings.model_copy(update={"s3_uri": settings.s3_uri.replace("{namespace}", namespace)})


def _from_bucket(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "s3_uri": spec["uri"],
        "s3_endpoint": spec.get("endpoint"),
        "s3_region": spec.get("region"),
        "s3_secret": (spec.get("credentialsSecretRef") or {}).get("name"),
        "store_label": "s3",
    }


def _from_claim(spec: Mapping[str, Any], default: Settings) -> dict[str, Any]:
    name, modes = spec.get("claimName") or default.claim_name, spec.get("accessModes") or ()
    mode = MANY_NODES if MANY_NODES in modes else next(iter(modes), default.claim_access_mode)
    return {
        "s3_uri": None,
        "claim_name": name,
        "claim_storage_class": spec.get("storageClassName") or default.claim_storage_class,
        "claim_access_mode": mode,
        "claim_size": str(spec.get("size") or default.claim_size),
        "store_label": name if name != default.claim_name else "",
    }


def _where_it_is(default: Settings, address: str | None) -> Settings:
    """The default store, unless the object's things are in another."""
    found = _STORED.fullmatch(address or "")
    if found is None:
        return default.model_copy(update={"store_label": "s3"}) if default.s3_uri else default
    store = found["store"]
    if store.startswith("s3://"):
        return default.model_copy(update={"s3_uri": store, "store_label": "s3"})
    name = store.removeprefix("pvc://")
    if default.s3_uri is None and name == default.claim_name:
        return default
    return default.model_copy(update=_from_claim({"claimName": name}, default))


def _addresses(status: Mapping[str, Any]) -> Iterator[str]:
    """Where things of an object are: a run's inputs, a batch's model, a revision, a served base."""
    run = status.get("run") or {}
    inputs, base = run.get("inputs") or {}, run.get("base") or {}
    for found in (
        inputs.get("baseUri"),
        base.get("uri"),
        *((status.get(part) or {}).get("uri") for part in ("revision", "base")),
    ):
        if found:
            yield found


def address_of(settings: Settings) -> str:
    """What references into an object's store begin with."""
    return f"pvc://{settings.claim_name}" if settings.s3_uri is None else settings.s3_uri


def in_another_store(settings: Settings, things: Mapping[str, StoredReference]) -> str | None:
    """Why pods could not use what others have made; None where all of it is in the object's own store.

    Args:
        settings: Of the object.
        things: By what they are, for people: `revision of Dataset 'rows'`.
    """
    store = address_of(settings)
    for name, thing in things.items():
        if not thing.uri.startswith(f"{store}/"):
            return (
                f"spec.storage: the {name} is at {thing.uri}, and this object's store is {store}; "
                "pods have one store: give both objects the same spec.storage"
            )
    return None


def store_reference(settings: Settings) -> Reference:
    """What stands for the store in the namespace: a claim, or a ConfigMap where it is in S3."""
    if settings.s3_uri is None:
        return Reference("PersistentVolumeClaim", settings.claim_name)
    return Reference("ConfigMap", record_name(settings))


def claim_among(references: Mapping[Reference, Manifest | None], settings: Settings) -> Manifest | None:
    """The namespace's claim, if it is there."""
    return references.get(store_reference(settings)) if settings.s3_uri is None else None


def settings_for(settings: Settings, claim: Manifest | None) -> Settings:
    """The settings with the access mode of the claim that is there."""
    modes = ((claim or {}).get("spec") or {}).get("accessModes") or ()
    mode = MANY_NODES if MANY_NODES in modes else next(iter(modes), settings.claim_access_mode)
    return settings if mode == settings.claim_access_mode else settings.model_copy(update={"claim_access_mode": mode})


def access_to(store: Manifest, users: Iterable[Manifest], settings: Settings) -> tuple[Settings, PodTemplate] | None:
    """The settings with a store, and what gives a pod the right to it; None where nobody knows any more.

    Args:
        store: The claim, or the ConfigMap of a store in S3.
        users: The namespace's objects: a store in S3 is reached as one that uses it says.
        settings: The operator's.
    """
    if store["kind"] == "PersistentVolumeClaim":
        own = _from_claim({"claimName": store["metadata"]["name"]}, settings)
        return settings_for(settings.model_copy(update=own), store), PodTemplate()
    uri = store["metadata"]["annotations"][ANNOTATION_STORE]
    for user in users:
        found = settings_of(settings, user)
        if found.s3_uri == uri:
            name = ((user.get("spec") or {}).get("podTemplate") or {}).get("serviceAccountName")
            return found, PodTemplate(service_account_name=name)
    default = settings_of(settings, {"metadata": store["metadata"]})
    return (default, PodTemplate()) if default.s3_uri == uri and default.s3_secret else None


def refuses_many_nodes(claim: Manifest | None, settings: Settings) -> str | None:
    """Why pods on several nodes cannot share the store (a StorageUnavailable message); None where they can."""
    if settings.s3_uri is not None:
        return None
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
    if settings.s3_uri is not None:
        return
    reason, message = conditions.said(READY)
    hint = f"(claim {settings.claim_name} is {settings.claim_access_mode}: pods run on the node where it is in use)"
    if settings.claim_access_mode != MANY_NODES and _AFFINITY in message and hint not in message:
        conditions.waiting(reason, f"{message} {hint}")
