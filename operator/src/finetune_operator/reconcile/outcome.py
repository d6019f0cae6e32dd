"""What a reconcile decides: effects for the engine to carry out, in the order of the fields."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from finetune_operator.manifests.naming import Manifest


class ChildName(NamedTuple):
    """A child object to delete, in the resource's namespace."""

    kind: str
    name: str
    uid: str
    """Deletion is refused by the API server if the object has been re-created since."""
    foreground: bool = False
    """Whether the object stays until its dependents are gone."""


@dataclass(frozen=True)
class Event:
    """An Event on the resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """Effects of one pass. A pass that finds everything as it should be has none."""

    create: tuple[Manifest, ...] = ()
    """POSTed once under a deterministic name and never changed: Jobs, ConfigMaps, the store's claim."""
    apply: tuple[Manifest, ...] = ()
    """Objects that are kept as they are here by server-side apply: Deployments, Services."""
    status: dict[str, Any] | None = None
    """The whole new status; written only if it differs. None leaves it alone."""
    delete: tuple[ChildName, ...] = ()
    """Carried out only after the status was written: an outcome is latched before its evidence goes."""
    events: tuple[Event, ...] = field(default=())
    """Emitted only after the status was written."""
    wake_after: float | None = None
    """Seconds until the next pass if nothing happens before."""
