"""What a user may add to a resource's pods: an allow-list, so that Pod Security and the operator's own part hold."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_operator.api.base import (
    ApiModel,
    Key,
    Name,
    NameReference,
    Quantity,
    SecretKeyReference,
    exactly_one_of,
    rule,
    rules,
)


class ConfigMapKeyReference(ApiModel):
    """A key of a ConfigMap in the same namespace."""

    name: Name
    """The ConfigMap's name."""
    key: Key
    """The key within it."""


class EnvVarSource(ApiModel):
    """Where a variable's value comes from: exactly one."""

    secret_key_ref: SecretKeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: ConfigMapKeyReference | None = None
    """A key of a ConfigMap."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("secretKeyRef", "configMapKeyRef")))


class EnvVar(ApiModel):
    """An environment variable of the pods, such as HTTPS_PROXY."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The variable's name."""
    value: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """Its value; secrets belong into valueFrom."""
    value_from: EnvVarSource | None = None
    """Where its value comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("value", "valueFrom"),
            rule(
                "!self.name.startsWith('FINETUNE_') && !(self.name in ['HOME', 'TMPDIR', 'PYTHONPATH', 'LD_PRELOAD'])",
                "name: FINETUNE_*, HOME, TMPDIR, PYTHONPATH and LD_PRELOAD belong to the operator; choose another",
            ),
        )
    )


_PREFIX = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?"
_OURS = "k.startsWith('finetune.dev/') || k.startsWith('batch.kubernetes.io/') || k == 'app.kubernetes.io/managed-by'"


def _keys_rule(field: str) -> dict[str, str]:
    return rule(
        f"self.all(k, k.matches('^{_PREFIX}[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$') && !({_OURS}))",
        f"{field}: keys are [prefix/]name in Kubernetes' form; finetune.dev/, batch.kubernetes.io/ and "
        "app.kubernetes.io/managed-by belong to the operator",
    )


MapKey = Annotated[str, StringConstraints(max_length=316)]

Labels = Annotated[
    dict[
        MapKey,
        Annotated[str, StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")],
    ],
    Field(max_length=32, json_schema_extra=rules(_keys_rule("labels"))),
]
Annotations = Annotated[
    dict[MapKey, Annotated[str, StringConstraints(max_length=4096)]],
    Field(max_length=32, json_schema_extra=rules(_keys_rule("annotations"))),
]


class PodTemplate(ApiModel):
    """What the pods get beside what the operator gives them."""

    service_account_name: Name | None = None
    """The pods' ServiceAccount, for workload identity; its token is not mounted."""
    image_pull_secrets: Annotated[
        list[NameReference],
        Field(
            max_length=8, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        ),
    ] = []
    """Secrets that images are pulled with."""
    env: Annotated[
        list[EnvVar],
        Field(
            max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        ),
    ] = []
    """Environment variables of all containers, such as proxies; the operator's own win."""
    ca_bundle: ConfigMapKeyReference | None = None
    """A PEM file with all certificate authorities that the pods trust, public ones included."""
    shared_memory: Quantity = "8Gi"
    """The most that /dev/shm of training pods may hold; it counts as the container's memory when used."""
    labels: Labels = {}
    """Further labels of the pods."""
    annotations: Annotations = {}
    """Further annotations of the pods."""
