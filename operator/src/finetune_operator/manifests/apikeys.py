"""The API keys of a ModelDeployment: a Secret that only kubelet reads, for the engine and for the prober."""

from dataclasses import dataclass, field

from finetune_contract.paths import API_KEYS_MOUNT, ENV_API_KEYS_FILE
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests.naming import Manifest

_FILE = "keys"


@dataclass(frozen=True)
class ApiKeys:
    """What a pod and its containers have for them: nothing where none are wanted."""

    env: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Manifest, ...] = ()
    volumes: tuple[Manifest, ...] = ()


def of(deployment: ModelDeployment) -> ApiKeys:
    """The keys as a file."""
    reference = deployment.spec.api_keys_secret_ref
    if reference is None:
        return ApiKeys()
    items = [{"key": reference.key, "path": _FILE}]
    return ApiKeys(
        env={ENV_API_KEYS_FILE: str(API_KEYS_MOUNT / _FILE)},
        mounts=({"name": "api-keys", "mountPath": str(API_KEYS_MOUNT), "readOnly": True},),
        volumes=({"name": "api-keys", "secret": {"secretName": reference.name, "items": items}},),
    )


def variable(deployment: ModelDeployment, name: str) -> tuple[Manifest, ...]:
    """The key as an environment variable, for engines that take no file, and only one key."""
    reference = deployment.spec.api_keys_secret_ref
    if reference is None:
        return ()
    return ({"name": name, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}},)
