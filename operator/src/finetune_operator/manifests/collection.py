"""The Job that deletes from a namespace's store what nothing refers to any more."""

from collections.abc import Iterable
from datetime import datetime

from finetune_contract.collection import CollectionPlan
from finetune_operator.api.base import Scheduling
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.manifests import jobs, pods, storage
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.manifests.staging import RESOURCES
from finetune_operator.settings import Settings

ROLE = "collect"

LONGEST_SECONDS = 3600
"""A pod that waits for a node, or deletes, for longer is stopped: its plan gets old, and the next one goes on."""


_PLAIN = PodTemplate()


def job_name(store: str, number: int) -> str:
    """Deterministic: the collection of one interval."""
    return child_name(store, "collect", str(number))


def build(
    store: Manifest,
    number: int,
    live: Iterable[str],
    as_of: datetime,
    minimum_age: float,
    settings: Settings,
    template: PodTemplate = _PLAIN,
) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created; both go with what stands for the store.

    Args:
        store: The claim, or the ConfigMap of a store in S3.
        number: Of the interval.
        live: What is in use, by prefix.
        as_of: When that was looked up.
        minimum_age: Seconds.
        settings: With this store.
        template: What gives the pod an identity.
    """
    metadata, kind = store["metadata"], store["kind"]
    name = job_name(metadata["name"], number)
    marks = labels(kind, metadata["name"], ROLE, attempt=str(number), **storage.mark(settings))
    owner = {
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "namespace": metadata["namespace"],
        "generation": 0,
    }
    plan = CollectionPlan(
        namespace=metadata["namespace"],
        **dict(storage.plan_of(settings)),
        as_of=as_of,
        minimum_age_seconds=minimum_age,
        live=tuple(sorted(live)),
    )
    container = pods.container(
        "collect",
        settings.operator_image,
        ["python", "-m", "finetune_store", "collect"],
        pull_policy=settings.image_pull_policy,
        resources=RESOURCES,
        mounts=(pods.PLAN_MOUNT, pods.STORE),
        **storage.access(settings),
    )
    volumes = [pods.plan_volume(name), storage.volume(settings)]
    pod = pods.pod_spec([container], volumes, Scheduling(), **storage.kept_together(settings))
    made = jobs.plan_config_map(name, plan, marks, owner), jobs.job(name, pod, marks, owner, template)
    for manifest in made:
        manifest["metadata"]["ownerReferences"][0]["apiVersion"] = "v1"
    made[1]["spec"]["activeDeadlineSeconds"] = max(1, int(min(LONGEST_SECONDS, minimum_age / 2)))
    return made
