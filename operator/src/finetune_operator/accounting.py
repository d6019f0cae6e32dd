"""What training has cost: the GPU-seconds of the attempts that a status write has latched. Pure.

An attempt is latched by exactly one write of its job's status, checked by version, so counting after each write that
succeeded counts it once, however often the job is looked at and whoever leads.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from finetune_contract.failure import policy_of, reason_of

SUCCEEDED, FAILED, DISRUPTED = "Succeeded", "Failed", "Disrupted"
"""How an attempt ended; disrupted ones are the cluster's doing and do not count against `retries.limit`."""


class Spent(NamedTuple):
    """What one attempt took."""

    outcome: str
    gpu_seconds: float


def spent(spec: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Spent]:
    """The attempts that the status `after` tells of and `before` did not."""
    gpus = gpus_of(spec.get("resources") or {})
    known = {(entry["run"], entry["number"]) for entry in before.get("attempts") or ()}
    return [
        Spent(_outcome(entry["reason"]), gpus * entry.get("seconds", 0))
        for entry in after.get("attempts") or ()
        if (entry["run"], entry["number"]) not in known
    ]


def gpus_of(resources: Mapping[str, Any]) -> float:
    """Accelerators of a pod: extended resources called `gpu`, whole or parts of one (`nvidia.com/mig-1g.10gb`)."""
    limits = resources.get("limits") or {}
    amounts = [str(amount) for name, amount in limits.items() if _is_gpu(name)]
    # Whole numbers, says Kubernetes of extended resources; a pod with anything else never ran.
    return float(sum(int(amount) for amount in amounts if amount.isascii() and amount.isdigit()))


def _is_gpu(resource: str) -> bool:
    domain, _, name = resource.partition("/")
    return bool(domain) and (name == "gpu" or name.startswith(("gpu.", "mig-")))


def _outcome(reason: str) -> str:
    if reason == SUCCEEDED:
        return SUCCEEDED
    policy = policy_of(reason_of(reason))
    return DISRUPTED if policy.retried and not policy.counts else FAILED
