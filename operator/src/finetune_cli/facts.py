"""What a raw FineTuneJob or BatchInference says: pure readings of a dictionary whose every field may be missing."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_cli.kinds import BATCHES, KINDS, RunKind

Object = dict[str, Any]
"""A resource, or a part of one, as the API server sends it."""


def part(resource: Object, *path: str) -> Object:
    """The mapping at the path; empty when any step of it is missing."""
    value: Any = resource
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def items(resource: Object, *path: str) -> list[Object]:
    """The list of mappings at the path; empty when it is missing."""
    value = part(resource, *path[:-1]).get(path[-1])
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def name_of(resource: Object) -> str:
    """The resource's name."""
    return str(part(resource, "metadata").get("name", ""))


def kind_of(resource: Object) -> RunKind:
    """What it is; an object whose kind is missing is taken for a FineTuneJob."""
    return RunKind.BATCH if resource.get("kind") == KINDS[BATCHES] else RunKind.JOB


def called(resource: Object) -> str:
    """The resource as our commands are given it."""
    kind = kind_of(resource)
    return name_of(resource) if kind is RunKind.JOB else f"{name_of(resource)} --kind {kind}"


def condition(resource: Object, kind: str) -> Object:
    """The condition of that type; empty when it was never set."""
    return next((one for one in items(resource, "status", "conditions") if one.get("type") == kind), {})


def holds(resource: Object, kind: str) -> bool:
    """Whether the condition is True."""
    return condition(resource, kind).get("status") == "True"


def is_current(resource: Object) -> bool:
    """Whether the status is about the spec as it is now, and not about one before an edit."""
    generation = part(resource, "metadata").get("generation", 0)
    return bool(part(resource, "status").get("observedGeneration", 0) >= generation)


def succeeded(resource: Object) -> bool:
    """Whether nothing is left to do; Complete alone may be about a run before the one that the spec asks for now."""
    return is_current(resource) and holds(resource, "Ready")


def failure(resource: Object) -> Object:
    """The condition that tells why nothing more will happen; empty while there is hope."""
    if not is_current(resource):
        return {}
    return next((condition(resource, kind) for kind in ("Failed", "Stalled") if holds(resource, kind)), {})


def phase(resource: Object) -> str:
    """The resource's phase; Pending before the operator has seen it."""
    return str(part(resource, "status").get("phase") or "Pending")


def attempt(resource: Object) -> int:
    """Number of the attempt that runs, else of the last one; 0 before the first."""
    if kind_of(resource) is RunKind.BATCH:
        return int(part(resource, "status", "run").get("attempt") or 0)
    ended = int(part(resource, "status").get("attemptsTotal") or 0)
    return ended + 1 if holds(resource, "Running") else ended


def queue_place(resource: Object) -> str:
    """`2nd of 5 in team-a`; empty when it does not wait in a queue, or its place is not known."""
    queue = part(resource, "status", "queue")
    position = queue.get("position")
    if not isinstance(position, int) or holds(resource, "Admitted"):
        return ""
    of = f" of {queue['waiting']}" if queue.get("waiting") else ""
    return f"{ordinal(position)}{of} in {queue.get('name')}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def finite(value: object) -> float | None:
    """The number, when it is one that can be drawn."""
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if math.isfinite(number) else None


def moment(value: object) -> datetime | None:
    """An RFC 3339 time."""
    try:
        parsed = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def time_left(resource: Object, now: datetime) -> timedelta | None:
    """Until a run ends at its present speed; None when it does not run, is not known, or should have ended."""
    progress = part(resource, "status", "progress")
    end = moment(progress.get("estimatedCompletionTime"))
    if end is None or end <= now or phase(resource) not in ("Training", "Answering"):
        return None
    return end - now


def age(value: object, now: datetime) -> timedelta | None:
    """How long ago the RFC 3339 time was."""
    then = moment(value)
    return None if then is None else max(now - then, timedelta())
