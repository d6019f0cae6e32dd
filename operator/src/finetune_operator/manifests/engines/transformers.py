"""Our own server on transformers and peft: the embedded default for laptops, CI and small CPU use."""

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_contract.paths import POD_PORT
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import apikeys, pods
from finetune_operator.manifests.engines.base import MERGE, Served, probes
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings

QUEUE_METRIC = "tgi_queue_size"


def container(
    deployment: ModelDeployment,
    served: Served,  # noqa: ARG001 - the server reads the plan itself
    settings: Settings,
    mounts: tuple[Manifest, ...],
) -> Manifest:
    """The engine's container, told what to serve by the plan."""
    keys = apikeys.of(deployment)
    return pods.container(
        "engine",
        deployment.spec.engine.image or settings.trainer_image,
        ["python", "-m", "finetune_server"],
        pull_policy=settings.image_pull_policy,
        resources=deployment.spec.resources,
        env={**pods.OFFLINE, **keys.env},
        mounts=(*mounts, *keys.mounts),
        ports=pods.ports(POD_PORT),
        **probes(deployment, period=2, patience=2),
    )


def refusal(facts: AdapterFacts | None) -> str | None:
    """What peft does not put beside other adapters in one batch."""
    if facts and AdapterFeature.DORA in facts.features:
        return f"peft serves no DoRA beside other adapters: {MERGE}, or train with spec.adapter.type LoRA or rsLoRA"
    if facts and AdapterFeature.CHANGED_BASE in facts.features:
        return "its initialisation changed the base, which is served unchanged: convert it to a plain LoRA"
    return None


def owned_arguments() -> frozenset[str]:
    """It takes none at all."""
    return frozenset()
