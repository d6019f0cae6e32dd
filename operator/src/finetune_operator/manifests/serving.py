"""The Deployment and Service of a ModelDeployment."""

import hashlib
from typing import NamedTuple

from finetune_contract.adapterfacts import AdapterFacts
from finetune_contract.base import StoredReference
from finetune_contract.paths import POD_PORT, PROBER_PORT
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_operator.api.base import GROUP, Resources, seconds_of
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import apikeys, jobs, pods, storage
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.engines import ENGINES
from finetune_operator.manifests.engines.base import Served
from finetune_operator.manifests.naming import (
    ANNOTATION_GENERATION,
    LABEL_STORE,
    MANAGER,
    Manifest,
    child_name,
    labels,
    owner_reference,
)
from finetune_operator.manifests.podtemplate import pod_template
from finetune_operator.settings import Settings

ROLE = "serve"
CANARY_ROLE = "canary"
SERVING_ROLES = (ROLE, CANARY_ROLE)
"""Of pods that serve; the Services tell them apart by it."""


class Track(NamedTuple):
    """One of the two Deployments that a ModelDeployment can have."""

    role: str
    suffix: str
    """Of the names of Deployment and Service."""


MAIN = Track(ROLE, "")
CANARY = Track(CANARY_ROLE, "-canary")

PROBER_RESOURCES = Resources(requests={"cpu": "50m", "memory": "96Mi"})
"""The prober sends a few small requests."""

LABEL_PLAN = f"{GROUP}/plan"
"""On the Deployment: the hash of the plan that its pods serve."""

GRACE_SECONDS = 150
"""Longer than an engine's lingering and its request time-out together, so that a pod that goes finishes what it
accepted."""


_SLACK_SECONDS = 600
"""For pulling the image and verifying the base before the engine starts."""


def plan(
    deployment: ModelDeployment, base: StoredReference, adapters: tuple[ServedAdapter, ...], settings: Settings
) -> ServingPlan:
    """What the pods serve and prove."""
    return ServingPlan(
        name=deployment.metadata.name,
        namespace=deployment.metadata.namespace,
        engine=deployment.spec.engine.type,
        base=base,
        adapters=adapters,
        max_batch_size=deployment.spec.engine.max_batch_size,
        max_queue=deployment.spec.engine.max_queue,
        max_total_tokens=deployment.spec.engine.max_total_tokens,
        **dict(storage.plan_of(settings)),
    )


def merged_plan(
    deployment: ModelDeployment, whole: StoredReference, adapter: ServedAdapter, settings: Settings
) -> ServingPlan:
    """The same for a merged model, which goes by the adapter's name: there is no base beside it."""
    document = plan(deployment, whole, (), settings)
    return document.model_copy(update={"name": adapter.name, "merged": adapter})


def url(deployment: ModelDeployment) -> str:
    """The OpenAI-compatible address within the cluster."""
    return f"http://{deployment.metadata.name}.{deployment.metadata.namespace}.svc:{POD_PORT}/v1"


def selector(deployment: ModelDeployment, track: Track = MAIN) -> dict[str, str]:
    """What marks the serving pods."""
    return labels("ModelDeployment", deployment.metadata.name, track.role)


def name_of(deployment: ModelDeployment, track: Track) -> str:
    """The Deployment's and the Service's name."""
    return deployment.metadata.name + track.suffix


def plan_config_map(deployment: ModelDeployment, document: ServingPlan) -> Manifest:
    """The plan's ConfigMap; its name carries its content's hash, so a new plan rolls the pods."""
    metadata = deployment.metadata
    owner = jobs.owner_of("ModelDeployment", metadata)
    digest = hashlib.sha256(document.to_json().encode()).hexdigest()
    return jobs.plan_config_map(child_name(metadata.name, "serve", digest[:8]), document, selector(deployment), owner)


def build(
    deployment: ModelDeployment,
    config_map: str,
    document: ServingPlan,
    facts: dict[str, AdapterFacts],
    settings: Settings,
    track: Track = MAIN,
) -> tuple[Manifest, Manifest]:
    """The Deployment and the Service, kept as they are here by server-side apply.

    Args:
        deployment: Whose they are.
        config_map: Name of the plan's ConfigMap.
        document: The plan.
        facts: What is known of the plan's adapters, by name.
        settings: The operator's.
        track: Which of the two.
    """
    served = Served(document, facts, accelerators(deployment.spec.resources))
    return _deployment(deployment, config_map, served, settings, track), _service(deployment, track)


def replicas_of(deployment: ModelDeployment, track: Track) -> int | None:
    """How many pods are wanted; None where an autoscaler says."""
    canary = deployment.spec.rollout.canary
    if canary and track is CANARY:
        return canary.replicas
    return None if deployment.spec.autoscaling else deployment.spec.replicas


def most_replicas(deployment: ModelDeployment) -> int:
    """How many pods there may be, without a canary's."""
    scaling = deployment.spec.autoscaling
    return scaling.max_replicas if scaling else deployment.spec.replicas


def _spread(deployment: ModelDeployment, marks: dict[str, str]) -> Manifest:
    """Several pods go to different nodes and zones where they can."""
    if most_replicas(deployment) < 2:
        return {}
    constraint = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": marks}}
    keys = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    return {"topologySpreadConstraints": [{**constraint, "topologyKey": key} for key in keys]}


def _deployment(
    deployment: ModelDeployment, config_map: str, served: Served, settings: Settings, track: Track
) -> Manifest:
    keys = apikeys.of(deployment)
    engine = ENGINES[deployment.spec.engine.type].container(
        deployment, served, settings, (pods.PLAN_MOUNT, pods.STORE_READ_ONLY, _ADAPTERS_READ_ONLY)
    )
    marks = selector(deployment, track)
    volumes = [
        pods.plan_volume(config_map),
        storage.volume(settings, read_only=True),
        {"name": "adapters", "emptyDir": {}},
    ]
    if pods.SHARED_MEMORY in engine["volumeMounts"]:
        volumes.append(pods.shared_memory(deployment.spec.pod_template.shared_memory))
    volumes += keys.volumes
    pod = pods.pod_spec(
        [engine, _prober(settings, keys)],
        volumes,
        deployment.spec.scheduling,
        **storage.kept_together(settings),
        initContainers=[_deliver(settings)],
        terminationGracePeriodSeconds=GRACE_SECONDS,
        **_spread(deployment, marks),
    )
    replicas = replicas_of(deployment, track)
    store = {LABEL_STORE: settings.store_label} if settings.store_label else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child_metadata(deployment, track, **{LABEL_PLAN: config_map[-8:]}),
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            # Else a pod that takes its time to load counts as one that cannot start.
            "progressDeadlineSeconds": seconds_of(deployment.spec.startup_timeout) + _SLACK_SECONDS,
            "selector": {"matchLabels": marks},
            # A new pod proves itself before an old one goes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod_template(pod, {**marks, **store}, deployment.spec.pod_template),
        },
    }


_ADAPTERS: Manifest = {"name": "adapters", "mountPath": "/adapters"}
_ADAPTERS_READ_ONLY: Manifest = {**_ADAPTERS, "readOnly": True}


def _deliver(settings: Settings) -> Manifest:
    """Verifies the base in the store and copies each adapter to its own path."""
    return pods.container(
        "deliver",
        settings.operator_image,
        ["python", "-m", "finetune_store", "deliver"],
        pull_policy=settings.image_pull_policy,
        resources=PROBER_RESOURCES,
        # From S3, it is the one that copies.
        mounts=(pods.PLAN_MOUNT, pods.STORE if settings.s3_uri else pods.STORE_READ_ONLY, _ADAPTERS),
        **storage.access(settings),
    )


def _prober(settings: Settings, keys: apikeys.ApiKeys) -> Manifest:
    """Proves each adapter; its readiness is the pod's."""
    return pods.container(
        "prober",
        settings.operator_image,
        ["python", "-m", "finetune_prober"],
        pull_policy=settings.image_pull_policy,
        resources=PROBER_RESOURCES,
        env=keys.env,
        mounts=(pods.PLAN_MOUNT, pods.STORE_READ_ONLY, _ADAPTERS_READ_ONLY, *keys.mounts),
        ports=[{"name": "prober", "containerPort": PROBER_PORT}],
        readinessProbe={"httpGet": {"path": "/ready", "port": PROBER_PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
    )


def _service(deployment: ModelDeployment, track: Track) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(deployment, track),
        "spec": {
            "selector": selector(deployment, track),
            "ports": [{"name": "http", "port": POD_PORT, "targetPort": POD_PORT, "protocol": "TCP"}],
        },
    }


def child_metadata(deployment: ModelDeployment, track: Track = MAIN, **more: str) -> Manifest:
    """Name, labels and owner of what is kept for a ModelDeployment."""
    metadata = deployment.metadata
    return {
        "name": name_of(deployment, track),
        "namespace": metadata.namespace,
        "labels": {**selector(deployment, track), "app.kubernetes.io/part-of": MANAGER, **more},
        "annotations": {ANNOTATION_GENERATION: str(metadata.generation)},
        "ownerReferences": [owner_reference("ModelDeployment", metadata.name, metadata.uid)],
    }
