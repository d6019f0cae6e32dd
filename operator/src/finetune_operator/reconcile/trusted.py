"""Which artifact of a FineTuneJob a ModelDeployment takes, by what the job's gate has said. Pure.

An artifact whose gate has failed, or has not decided, is refused unless spec.ignoreGate says otherwise. What was taken
once stays taken: its verdict is latched in the deployment's own status, and the job may change or go.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api.gate import RuleOutcome, Verdict
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.resources import ready_message

REMEDY = "relax spec.gate of the job (nothing is trained for that), train a better one, or set spec.ignoreGate: true"


@dataclass(frozen=True)
class Refusal:
    """Why an artifact is not taken."""

    digest: str
    message: str
    is_final: bool
    """Whether somebody has to do something; else the gate will decide."""


def newest(job: Manifest | None, *, ignore_gate: bool) -> Manifest | None:
    """The job's artifact; regardless of gates what it made last. Where none has passed, what there is to refuse."""
    status = (job or {}).get("status") or {}
    good: Manifest | None = status.get("artifact")
    made = _made(status)
    if ignore_gate or good is None:
        return made[-1] if made else good
    return good


def pinned(job: Manifest | None, digest: str) -> Manifest | None:
    """The job's artifact of this content, as far back as its status tells."""
    status = (job or {}).get("status") or {}
    artifacts = [*_made(status), *([status["artifact"]] if status.get("artifact") else [])]
    return next((artifact for artifact in reversed(artifacts) if artifact["digest"] == digest), None)


def known_digests(job: Manifest | None) -> list[str]:
    """What the job has made, newest last, as far back as its status tells."""
    status = (job or {}).get("status") or {}
    artifacts = [*_made(status), *([status["artifact"]] if status.get("artifact") else [])]
    return list(dict.fromkeys(str(artifact["digest"]) for artifact in artifacts))


def refusal(job: Manifest | None, artifact: Mapping[str, Any]) -> Refusal | None:
    """Why the gate keeps an artifact from being served; None where nothing speaks against it."""
    name = str((job or {}).get("metadata", {}).get("name", ""))
    digest, verdict = str(artifact["digest"]), artifact.get("verdict")
    if verdict in (None, Verdict.PASSED.value):
        return None
    if verdict == Verdict.UNDECIDED.value:
        words = ready_message(job or {})
        return Refusal(digest, f"the gate of FineTuneJob {name!r} has not decided about {digest}: {words}", False)
    return Refusal(digest, f"{digest} of FineTuneJob {name!r} failed its gate{_failed(job, digest)}; {REMEDY}", True)


def _made(status: Mapping[str, Any]) -> list[Manifest]:
    return [record["artifact"] for record in status.get("runs") or () if record.get("artifact")]


def _failed(job: Manifest | None, digest: str) -> str:
    """The rules that were not met, where the job's status still tells them."""
    gate = ((job or {}).get("status") or {}).get("gate") or {}
    rules = gate.get("rules") or () if gate.get("digest") == digest else ()
    failed = [str(rule["message"]) for rule in rules if rule["outcome"] == RuleOutcome.FAILED.value]
    return f" ({'; '.join(failed)})" if failed else ""
