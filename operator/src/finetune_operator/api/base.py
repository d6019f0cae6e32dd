"""What every custom resource is made of: bounded strings, field classes, metadata, conditions, shared fragments."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

GROUP = "finetune.dev"
VERSION = "v1alpha1"


class FieldClass(StrEnum):
    """What an edit of a spec field does; written beside the field."""

    TRAIN = "Train"
    """Decides the weights: part of the run key; an edit starts a new run."""
    INPUT = "Input"
    """Resolved to a digest that is part of the run key; an edit looks all inputs up again."""
    EVALUATE = "Evaluate"
    """Measured after training; never part of the run key."""
    GATE = "Gate"
    """Decided from what was measured; never part of the run key."""
    EXPORT = "Export"
    """Made of the artifact afterwards; never part of the run key."""
    OPERATIONAL = "Operational"
    """Where and how the run is carried out; never part of the run key."""


def rule(expression: str, message: str, **more: str) -> dict[str, str]:
    """A CEL rule of the CRD; the message says what to do."""
    return {"rule": expression, "message": message, **more}


def rules(*rules: dict[str, str]) -> dict[str, Any]:
    """The schema extension that carries a model's CEL rules."""
    return {"x-kubernetes-validations": list(rules)}


def exactly_one_of(*names: str) -> dict[str, str]:
    """The rule of a union: exactly one of the sub-objects is set."""
    count = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    return rule(f"{count} == 1", f"set exactly one of {', '.join(names)}")


class ApiModel(BaseModel):
    """A part of a custom resource.

    Unknown fields are ignored when read, so that an older operator survives objects of a newer one; the API server
    prunes or refuses them on the way in.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in YAML, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object in the same namespace."""

Key = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""A key of a ConfigMap or Secret."""

Text = Annotated[str, StringConstraints(max_length=1024)]
Word = Annotated[str, StringConstraints(max_length=128)]
Uri = Annotated[str, StringConstraints(min_length=1, max_length=2048)]

Digest = Annotated[str, StringConstraints(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 hexadecimal digits."""

_SEGMENT = r"([^/.\\\x00][^/\\\x00]*|\.[^/.\\\x00][^/\\\x00]*|\.\.[^/\\\x00]+|\.)"

RelativePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512, pattern=rf"^{_SEGMENT}(/{_SEGMENT})*/?$"),
    Field(
        json_schema_extra=rules(
            rule(
                "!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
                "a path inside the volume: relative, without '..'",
            )
        )
    ),
]
"""A path inside a volume; the pod refuses one that leaves it, too (a link can)."""

Fraction = Annotated[float, Field(ge=0, le=1)]

Quantity = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
            "maxLength": 32,
        }
    ),
]
"""A Kubernetes quantity, such as `500m`, `64Gi` or `1`."""

Duration = Annotated[
    str, StringConstraints(min_length=2, max_length=16, pattern=r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$")
]
"""A length of time in hours, minutes and seconds, such as `8h` or `1h30m`."""

Token = Annotated[str, StringConstraints(min_length=1, max_length=63)]
"""A word that means nothing but "another one than before"."""

_UNITS = {"h": 3600, "m": 60, "s": 1}


def seconds_of(duration: str) -> int:
    """The seconds of a `Duration`."""
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"([0-9]+)([hms])", duration))


ResourceName = Annotated[str, StringConstraints(max_length=253)]
Quantities = Annotated[dict[ResourceName, Quantity], Field(max_length=16)]


class SecretKeyReference(ApiModel):
    """A key of a Secret in the same namespace."""

    name: Name
    """The Secret's name."""
    key: Key
    """The key within it."""


class NameReference(ApiModel):
    """An object of the same namespace, by name."""

    name: Name
    """The object's name."""


class VolumePath(ApiModel):
    """A path in a PersistentVolumeClaim of the same namespace."""

    claim_name: Name
    """The claim's name."""
    path: RelativePath = "."
    """Path in the volume, relative; a glob where several files may be meant."""


class Resources(ApiModel):
    """What the pod's container asks for; any resource name of the cluster."""

    requests: Quantities = {}
    """What the scheduler reserves, for example `cpu: "8"`."""
    limits: Quantities = {}
    """What the container may use at most, for example `nvidia.com/gpu: 1`."""


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = None
    """The taint's key; empty with operator Exists matches all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How value is compared."""
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; unset matches all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a NoExecute taint is tolerated."""


class Scheduling(ApiModel):
    """Where pods may run."""

    node_selector: Annotated[
        dict[ResourceName, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=16)
    ] = {}
    """Labels that the node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that the pod accepts."""
    priority_class_name: Name | None = None
    """The pods' PriorityClass."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One aspect of the resource's state, in Kubernetes' standard form."""

    type: Annotated[str, StringConstraints(max_length=64)]
    """Which aspect."""
    status: ConditionStatus
    """Whether it holds."""
    reason: Annotated[str, StringConstraints(max_length=64)]
    """Why, in one CamelCase word."""
    message: Annotated[str, StringConstraints(max_length=2048)] = ""
    """Why, for people."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the spec that this was decided for."""
    last_transition_time: datetime
    """When status changed last."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class BaseStatus(ApiModel):
    """A stored base model."""

    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""


class JobFailure(ApiModel):
    """Why a Job of ours failed, kept when its pod is gone."""

    job: Word
    """The Job's name."""
    reason: Word
    """Why it failed."""
    message: Annotated[str, StringConstraints(max_length=2048)] = ""
    """What happened."""


class ResourceStatus(ApiModel):
    """What every status has."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the spec that this status is about."""
    conditions: Conditions = []
    """The resource's state, aspect by aspect; Ready sums them up."""
    phase: Word | None = None
    """One word for people's eyes, derived from the conditions."""


class Metadata(BaseModel):
    """What the operator reads of an object's metadata."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: str
    namespace: str
    uid: str
    generation: int = 1
    deletion_timestamp: datetime | None = None


class PrinterColumn(NamedTuple):
    """A column of `kubectl get`."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "date"] = "string"
    wide: bool = False


class ResourceMeta(NamedTuple):
    """What a CRD says beside its schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[PrinterColumn, ...]
    scale: bool = False


COMMON_REASON = PrinterColumn("Reason", '.status.conditions[?(@.type=="Ready")].reason')
COMMON_MESSAGE = PrinterColumn("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True)
COMMON_AGE = PrinterColumn("Age", ".metadata.creationTimestamp", "date")

NAME_RULE = rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",
    "metadata.name must start with a letter, have only lower-case letters, digits and '-', at most 63: "
    "it becomes part of Job and Service names",
)
