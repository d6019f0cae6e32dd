"""What is counted from statuses: GPU-seconds of attempts, gates and resources that failed, waits in queues. Pure.

An attempt is latched by exactly one write of its job's status, checked by version, so counting after each write that
succeeded counts it once, however often the job is looked at and whoever leads. The last attempt of a run that makes
way for another is in the record of that run alone.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from finetune_contract.failure import policy_of, reason_of
from finetune_operator.reconcile.conditions import STALLED
from finetune_operator.reconcile.queueing import ADMITTED

SUCCEEDED, FAILED, DISRUPTED, SUSPENDED, CANCELLED = "Succeeded", "Failed", "Disrupted", "Suspended", "Cancelled"
"""How an attempt ended; disrupted ones are the cluster's doing and do not count against `retries.limit`."""


SERVING, LOADING = "Serving", "Loading"
PROVEN = (SERVING, "Inert", "Invalid", "RolledBack")
"""States of a served adapter that a proof, a preflight or a canary has led to."""


class Spent(NamedTuple):
    """What one attempt took."""

    outcome: str
    gpu_seconds: float


def spent(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Spent]:
    """The attempts that the status `after` tells of and `before` did not."""
    known = {(entry["run"], entry["number"]) for entry in before.get("attempts") or ()}
    latched = [
        Spent(_outcome(entry["reason"]), float(entry.get("gpuSeconds", 0)))
        for entry in after.get("attempts") or ()
        if (entry["run"], entry["number"]) not in known
    ]
    return latched + _cancelled(before, after)


def _cancelled(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Spent]:
    """What the run of `before` had used beyond its latched attempts, if `after` tells that it was cancelled."""
    run = (before.get("run") or {}).get("key")
    records = [record for record in after.get("runs") or () if record["key"] == run]
    if any(record["key"] == run for record in before.get("runs") or ()):
        return []
    rest = sum(float(record.get("gpuSeconds", 0)) for record in records if record["outcome"] == CANCELLED)
    rest -= float(before.get("gpuSecondsTotal", 0))
    return [Spent(CANCELLED, rest)] if rest > 0 else []


def has_failed_gate(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the status `after` tells of a gate's refusal that `before` did not."""
    decided, known = after.get("gate") or {}, before.get("gate") or {}
    return decided.get("verdict") == "Failed" and any(
        decided.get(part) != known.get(part) for part in ("digest", "key")
    )


def failure(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """The reason for which the status `after` says that nothing goes on any more, and `before` did not."""
    stalled, known = _condition(after, STALLED), _condition(before, STALLED)
    is_news = (stalled.get("status"), stalled.get("reason")) != (known.get("status"), known.get("reason"))
    return str(stalled.get("reason", "")) if is_news and stalled.get("status") == "True" else None


def waited(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Seconds that an attempt waited in a queue, if `after` tells that it was admitted and `before` did not."""
    admitted, known = _condition(after, ADMITTED), _condition(before, ADMITTED)
    if (known.get("status"), admitted.get("status")) != ("False", "True"):
        return None
    times = [datetime.fromisoformat(str(each["lastTransitionTime"])) for each in (known, admitted)]
    return max(0.0, (times[1] - times[0]).total_seconds())


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    found = [each for each in status.get("conditions") or () if each.get("type") == type_]
    return found[0] if found else {}


class Tried(NamedTuple):
    """What became of an adapter's artifact in a ModelDeployment."""

    state: str
    seconds: float | None
    """From wanted to served."""


def tried(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Tried]:
    """Artifacts that `after` tells to be served, or not to be servable, and `before` did not."""
    known = {(each["name"], each.get("digest")): each for each in before.get("adapters") or ()}
    found = []
    for each in after.get("adapters") or ():
        was = known.get((each["name"], each.get("digest"))) or {}
        if each["state"] == was.get("state") or each["state"] not in PROVEN:
            continue
        is_loaded = each["state"] == SERVING and was.get("state") == LOADING and "since" in was and "since" in each
        found.append(Tried(each["state"], _seconds(was["since"], each["since"]) if is_loaded else None))
    return found


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _outcome(reason: str) -> str:
    if reason in (SUCCEEDED, SUSPENDED, CANCELLED):
        return reason
    policy = policy_of(reason_of(reason))
    return DISRUPTED if policy.retried and not policy.counts else FAILED
