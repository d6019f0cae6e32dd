"""Our own server on transformers and peft: the embedded default for laptops, CI and small CPU use."""

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_contract.paths import ENV_LINGER_SECONDS, POD_PORT
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import apikeys, pods
from finetune_operator.manifests.engines.base import LINGER_SECONDS, Served, instead, probes
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
        # It lingers itself: unlike a preStop hook, it can tell clients to leave the connections that they keep.
        env={**pods.OFFLINE, ENV_LINGER_SECONDS: str(LINGER_SECONDS), **keys.env},
        mounts=(*mounts, *keys.mounts),
        ports=pods.ports(POD_PORT),
        **probes(deployment, period=1, patience=2),
    )


_REFUSED = {
    AdapterFeature.DORA: "DoRA magnitudes",
    AdapterFeature.BIAS: "trained biases",
    AdapterFeature.WHOLE_MODULES: "modules that were trained whole",
}
"""What peft does not put beside other adapters in one batch; the server ends with InvalidPlan when it finds it."""


def refusal(facts: AdapterFacts | None) -> str | None:
    """What the server would refuse when it starts."""
    if facts is None:
        return None
    if AdapterFeature.CHANGED_BASE in facts.features:
        return "its initialisation changed the base, which is served unchanged: convert it to a plain LoRA"
    found = [words for feature, words in _REFUSED.items() if feature in facts.features]
    if found:
        return f"peft serves no {' and '.join(found)} beside other adapters: {instead(facts.features)}"
    return None


def owned_arguments() -> frozenset[str]:
    """It takes none at all."""
    return frozenset()
