"""How a new artifact or image of a ModelDeployment takes over, and how requests come in from outside."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_operator.api.adapterfacts import AdapterFactsStatus
from finetune_operator.api.base import ApiModel, BaseStatus, Digest, Duration, Fraction, Uri, Word
from finetune_operator.api.engine import Engine


class Canary(ApiModel):
    """New artifacts and another engine go to pods of their own first, and replace the old ones when they have held."""

    weight: Annotated[int, Field(ge=1, le=99)] = 10
    """Percentage of the route's requests that proven canary pods get; without spec.route, send them what you like by
    the Service `<name>-canary`."""
    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """How many canary pods."""
    interval: Duration = "10m"
    """How long proven canary pods have to hold."""
    max_error_rate: Fraction = 0.01
    """Share of their requests that may fail by the server's own count; above it the canary is rolled back."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """From so many requests on a rate above the limit ends the canary before the interval does."""


class Rollout(ApiModel):
    """How what is served is replaced."""

    canary: Canary | None = None
    """Unset: pod by pod, each proven before an old one goes."""


class ParentReference(ApiModel):
    """A Gateway, as in the Gateway API's HTTPRoute."""

    group: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Unset: gateway.networking.k8s.io."""
    kind: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = None
    """Unset: Gateway."""
    namespace: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = None
    """Unset: the deployment's own."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Its name."""
    section_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    """The listener; unset: all."""


Hostname = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=r"^([*][.])?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
]
"""A host's name, or `*.` and a domain."""


class Route(ApiModel):
    """An HTTPRoute of the Gateway API to the serving pods."""

    parent_refs: Annotated[list[ParentReference], Field(min_length=1, max_length=16)]
    """Gateways that it is attached to."""
    hostnames: Annotated[list[Hostname], Field(max_length=16)] = []
    """Names that it answers to; empty: all of the Gateway's."""


class RevisionAdapter(ApiModel):
    """An adapter of a revision."""

    name: Word
    """The model name that clients ask for."""
    digest: Digest
    """The artifact."""
    uri: Uri
    """Where it is stored."""
    adapter: AdapterFactsStatus | None = None
    """What the engine must know of it."""


class Revision(ApiModel):
    """Everything that decides what pods answer; kept so that it can be served on."""

    key: Word
    """Names it: the same artifacts on the same engine have the same key."""
    base: BaseStatus
    """The base model, or the merged one."""
    merged: bool = False
    """Whether the adapter is in the base's weights."""
    adapters: Annotated[list[RevisionAdapter], Field(max_length=32)] = []
    """What is served beside it."""
    engine: Engine
    """The server and its limits."""


class CanaryStatus(ApiModel):
    """What is being tried."""

    key: Word
    """The revision's."""
    proven_at: datetime | None = None
    """When all canary pods had proven their adapters; unset: they have not yet."""
    requests: Annotated[int, Field(ge=0)] = 0
    """Requests that the canary pods there are now have counted, the proofs' own among them."""
    errors: Annotated[int, Field(ge=0)] = 0
    """Those of them that failed by the server's fault."""


class RolledBack(ApiModel):
    """A revision that is not tried again."""

    key: Word
    """The revision's."""
    reason: Annotated[str, StringConstraints(max_length=64)]
    """Why, in one CamelCase word."""
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Why, for people."""
    time: datetime
    """When."""


class RolloutStatus(ApiModel):
    """Where a canary roll-out is."""

    stable: Revision | None = None
    """What is served; unset until something has been, whole and proven."""
    canary: CanaryStatus | None = None
    """What is being tried beside it."""
    rolled_back: Annotated[list[RolledBack], Field(max_length=10)] = []
    """What did not hold, the latest last."""
