"""Our own server on transformers and peft: the embedded default for laptops, CI and small CPU use."""

from finetune_contract.paths import POD_PORT
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import pods
from finetune_operator.manifests.naming import Manifest
from finetune_operator.settings import Settings


def container(deployment: ModelDeployment, settings: Settings, mounts: tuple[Manifest, ...]) -> Manifest:
    """The engine's container; readiness is the prober's business, liveness is the engine's own."""
    return pods.container(
        "engine",
        settings.trainer_image,
        ["python", "-m", "finetune_server"],
        pull_policy=settings.image_pull_policy,
        resources=deployment.spec.resources,
        env=pods.OFFLINE,
        mounts=mounts,
        ports=pods.ports(POD_PORT),
        # Loading a large model takes minutes; until then only the start-up probe speaks.
        startupProbe={"httpGet": {"path": "/health", "port": POD_PORT}, "periodSeconds": 2, "failureThreshold": 900},
        livenessProbe={
            "httpGet": {"path": "/health", "port": POD_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    )
