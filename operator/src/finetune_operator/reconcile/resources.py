"""What every reconcile begins and ends with: reading the resource, writing its status, dropping stale children."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from finetune_operator.api.base import ApiModel, Condition, ResourceStatus
from finetune_operator.manifests import storage
from finetune_operator.manifests.naming import LABEL_QUEUE, LABEL_ROLE, LABEL_RUN, Manifest
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.endings import generation_of, label_of, name_of
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import ChildName, Outcome
from finetune_operator.reconcile.troubles import NAME_TAKEN, Trouble, refusal

ACCEPTED = "Accepted"

Resource = TypeVar("Resource", bound=ApiModel)


def read(model: type[Resource], raw: Manifest, now: datetime) -> Resource | Outcome:
    """The resource, or the outcome that says why it cannot be read.

    The API server has validated the spec against the CRD, so this speaks only where CRD and operator differ in version.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        generation = int(raw["metadata"].get("generation", 1))
        conditions = ConditionSet(_readable_conditions(raw), generation, now)
        message = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        conditions.set(ACCEPTED, False, "InvalidSpec", message)
        conditions.stalled("InvalidSpec", message)
        status = ResourceStatus(observed_generation=generation, conditions=conditions.to_list(), phase="Invalid")
        # What an older or newer version wrote stays: losing a run's record could train again.
        return Outcome(status={**(raw.get("status") or {}), **status.to_dict()})


def _readable_conditions(raw: Manifest) -> list[Condition]:
    """The conditions as far as they can be read: without them, transition times would move with every pass."""
    found = []
    for item in (raw.get("status") or {}).get("conditions") or ():
        with suppress(ValidationError):
            found.append(Condition.model_validate(item))
    return found


def is_deleted(raw: Manifest) -> bool:
    """Whether the resource is going: children go with it by their owner references, what is stored stays."""
    return bool(raw["metadata"].get("deletionTimestamp"))


def missing_claim(observed: Observed, namespace: str) -> tuple[Manifest, ...]:
    """The namespace's store claim, or what stands for a store in S3, if it has to be created."""
    settings = observed.settings
    if settings.s3_uri is None:
        reference, make = Reference("PersistentVolumeClaim", settings.claim_name), storage.claim
    else:
        reference, make = Reference("ConfigMap", storage.record_name(settings)), storage.record
    return () if observed.references.get(reference) else (make(namespace, settings),)


def note_denials(conditions: ConditionSet, observed: Observed) -> None:
    """Say that a child was refused: by the API server, in its own words (quota, Pod Security, a webhook), or by us."""
    if observed.denials:
        message = "; ".join(f"{name}: {words}" for name, words in sorted(observed.denials.items()))
        reason = refusal(message)
        trouble = Trouble(reason, message if reason == NAME_TAKEN else f"the API server refused {message}")
        conditions.waiting(trouble.reason, trouble.advice)


def stale_children(observed: Observed, keep: Callable[[str, str], bool]) -> tuple[ChildName, ...]:
    """Jobs and plans of other readings, resolutions or runs: `keep(role, run)` says which belong to the present."""
    return tuple(
        child(kind, item)
        for kind in ("Job", "ConfigMap")
        for item in observed.of(kind)
        if not item["metadata"].get("deletionTimestamp")
        and not keep(label_of(item, LABEL_ROLE), label_of(item, LABEL_RUN))
    )


def to_create(
    observed: Observed, wanted: tuple[Manifest, ...], generation: int
) -> tuple[tuple[Manifest, ...], tuple[ChildName, ...]]:
    """What is to be created, or, while a plan from before an edit has its name, what has to go first."""
    names = {name_of(manifest) for manifest in wanted if manifest["kind"] == "ConfigMap"}
    outdated = [
        item
        for item in observed.of("ConfigMap")
        if name_of(item) in names and generation_of(item, generation) != generation
    ]
    return (() if outdated else wanted), _doomed("ConfigMap", outdated)


def with_plan(observed: Observed, job: Manifest) -> tuple[ChildName, ...]:
    """A Job and its plan as things to delete."""
    plans = [item for item in observed.of("ConfigMap") if name_of(item) == name_of(job)]
    return _doomed("Job", [job]) + _doomed("ConfigMap", plans)


def _doomed(kind: str, items: Iterable[Manifest]) -> tuple[ChildName, ...]:
    return tuple(child(kind, item) for item in items if not item["metadata"].get("deletionTimestamp"))


def child(kind: str, item: Manifest) -> ChildName:
    """A child as something to delete.

    A queued Job stays until its Workload is gone: Kueue finds Workloads by their Job's name, and would start a new Job
    of the same name by what the old one's says.
    """
    return ChildName(kind, name_of(item), item["metadata"]["uid"], foreground=bool(label_of(item, LABEL_QUEUE)))


def seconds_until(times: Iterable[datetime | None], now: datetime) -> float | None:
    """Seconds until the earliest of some times; None if there is none."""
    waits = [max(0.0, (time - now).total_seconds()) for time in times if time is not None]
    return min(waits, default=None)


def status_of(status: ResourceStatus) -> dict[str, Any]:
    """As it is written."""
    return status.to_dict()


def ready_message(raw: Manifest) -> str:
    """What a resource of ours says of itself, for the message of another that waits for it."""
    conditions = {condition["type"]: condition for condition in (raw.get("status") or {}).get("conditions") or ()}
    if "Ready" not in conditions:
        return "nobody has looked at it yet"
    said = f"{conditions['Ready']['reason']}: {conditions['Ready'].get('message', '')}"
    if conditions.get("Stalled", {}).get("status") != "True":
        return said
    return f"{said.rstrip('.')}. It does not go on by itself: mend it, and what waits for it goes on"
