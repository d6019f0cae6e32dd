"""What an evaluation takes from other FineTuneJobs: models to compare with, and the one that gives rewards. Pure.

Training does not wait for them. Each is latched once it is there, so that what is measured does not change when the
other job makes something new; until then `Evaluated` says what is missing.
"""

from dataclasses import dataclass

from finetune_contract.base import StoredReference
from finetune_contract.results import ArtifactType
from finetune_operator.api.base import BaseStatus
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import MeasuringInput, Run
from finetune_operator.manifests import measuring
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.draft import EVALUATED, Draft
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.resources import ready_message
from finetune_operator.reconcile.storage import in_another_store

_REASONS = ("BaselineNotFound", "BaselineNotReady", "BaselineUnfit")


@dataclass(frozen=True)
class Lack:
    """Why something cannot be measured yet."""

    reason: str
    message: str
    is_final: bool
    """Whether only an edit helps."""


def latch(draft: Draft, job: FineTuneJob, run: Run) -> Run:
    """The run with everything that is there of what its evaluation asks for."""
    known = measuring.artifacts(job.spec.evaluation, run.measuring)
    lack: Lack | None = None
    for part, (path, name) in measuring.jobs_of(job.spec.evaluation).items():
        if part in known:
            continue
        found = _find(part, f"spec.evaluation.{path}", name, draft.observed)
        if isinstance(found, Lack):
            lack = lack or found
        else:
            known[part] = found
    if lack and job.spec.evaluation.metrics:
        draft.conditions.set(EVALUATED, False, lack.reason, lack.message)
    elif draft.conditions.said(EVALUATED)[0] in _REASONS:
        draft.conditions.remove(EVALUATED)
    return run.model_copy(update={"measuring": list(known.values())})


def lack_of(job: FineTuneJob, run: Run, observed: Observed) -> Lack | None:
    """What the evaluation still waits for; None where all of it is latched."""
    known = measuring.artifacts(job.spec.evaluation, run.measuring)
    for part, (path, name) in measuring.jobs_of(job.spec.evaluation).items():
        if part not in known:
            found = _find(part, f"spec.evaluation.{path}", name, observed)
            if isinstance(found, Lack):
                return found
    return None


def _find(part: str, path: str, name: str, observed: Observed) -> MeasuringInput | Lack:
    other = observed.references.get(Reference("FineTuneJob", name))
    if other is None:
        return Lack("BaselineNotFound", f"{path}: there is no FineTuneJob {name!r}; create it", is_final=False)
    artifact: Manifest | None = (other.get("status") or {}).get("artifact")
    if artifact is None:
        said = f"{path}: FineTuneJob {name!r} has no artifact yet: {ready_message(other)}"
        return Lack("BaselineNotReady", said, is_final=False)
    is_reward = artifact["type"] == ArtifactType.REWARD_MODEL
    if is_reward != (part == measuring.REWARD_MODEL):
        made = "a reward model, which writes no answers" if is_reward else "no reward model"
        remedy = "name another" if is_reward else "name one with spec.method Reward"
        return Lack("BaselineUnfit", f"{path}: FineTuneJob {name!r} made {made}; {remedy}", is_final=True)
    reference = StoredReference(digest=artifact["digest"], uri=artifact["uri"])
    if message := in_another_store(observed.settings, {f"artifact of FineTuneJob {name!r}": reference}):
        return Lack("BaselineUnfit", f"{path}: {message}", is_final=True)
    is_adapter = artifact["type"] == ArtifactType.ADAPTER
    return MeasuringInput(
        part=part,
        job=name,
        digest=reference.digest,
        uri=reference.uri,
        base=BaseStatus.model_validate(artifact["base"]) if is_adapter else None,
    )
