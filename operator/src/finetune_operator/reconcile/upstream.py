"""What a FineTuneJob takes from other FineTuneJobs: its base, reward models, a teacher."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from finetune_contract.base import StoredReference
from finetune_contract.methods import Method
from finetune_contract.results import ArtifactType
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.methods import RewardSource
from finetune_operator.manifests.methods import ADAPTER, TEACHER, TEACHER_ADAPTER, reward_part
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.lineage import circle
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.resources import ready_message


@dataclass(frozen=True)
class Upstream:
    """Artifacts of other jobs, by content."""

    base: StoredReference | None = None
    """The base model where another job made it, or the one that its adapter is for."""
    others: dict[str, StoredReference] = field(default_factory=dict)
    """What else the run learns from, by part."""


def find(job: FineTuneJob, observed: Observed, conditions: ConditionSet) -> Upstream | None:
    """What other jobs have to have made; None while something is missing, with the conditions saying what."""
    base: StoredReference | None = None
    others: dict[str, StoredReference] = {}
    if job.spec.base_model.fine_tune_job:
        path = "spec.baseModel.fineTuneJob.name"
        found = _model_of(job.metadata.name, job.spec.base_model.fine_tune_job.name, path, "Base", observed, conditions)
        if found is None:
            return None
        base, adapter = found
        others |= {ADAPTER: adapter} if adapter else {}
    for number, path, name in _reward_jobs(job):
        artifact = _artifact(job.metadata.name, name, path, "Reward", observed, conditions)
        if artifact is None:
            return None
        if artifact["type"] != ArtifactType.REWARD_MODEL:
            _refuse(conditions, "RewardNotAModel", f"{path}: FineTuneJob {name!r} made no reward model; "
                    "name one with spec.method Reward")  # fmt: skip
            return None
        others[reward_part(number)] = _reference(artifact)
    if job.spec.distillation:
        path = "spec.distillation.teacher.fineTuneJob.name"
        name = job.spec.distillation.teacher.fine_tune_job.name
        teacher = _model_of(job.metadata.name, name, path, "Teacher", observed, conditions)
        if teacher is None:
            return None
        others[TEACHER] = teacher[0]
        others |= {TEACHER_ADAPTER: teacher[1]} if teacher[1] else {}
    return Upstream(base, others)


def _reward_jobs(job: FineTuneJob) -> Iterator[tuple[int, str, str]]:
    settings = {Method.GRPO: job.spec.grpo, Method.RLOO: job.spec.rloo}.get(job.spec.method)
    rewards: list[RewardSource] = settings.rewards if settings else []
    for number, reward in enumerate(rewards):
        if reward.fine_tune_job:
            path = f"spec.{job.spec.method.lower()}.rewards[{number}].fineTuneJob.name"
            yield number, path, reward.fine_tune_job.name


def _model_of(
    job: str, name: str, path: str, part: str, observed: Observed, conditions: ConditionSet
) -> tuple[StoredReference, StoredReference | None] | None:
    """A language model that another job made: the model, and the adapter on it if it made one."""
    artifact = _artifact(job, name, path, part, observed, conditions)
    if artifact is None:
        return None
    if artifact["type"] == ArtifactType.ADAPTER:
        return _reference(artifact["base"]), _reference(artifact)
    if artifact["type"] == ArtifactType.MODEL:
        return _reference(artifact), None
    message = f"{path}: FineTuneJob {name!r} made a reward model, which scores answers and writes none; name another"
    _refuse(conditions, f"{part}NotAModel", message)
    return None


def _artifact(
    job: str, name: str, path: str, part: str, observed: Observed, conditions: ConditionSet
) -> Manifest | None:
    upstream = observed.references.get(Reference("FineTuneJob", name))
    if upstream is None:
        _wait(conditions, f"{part}NotFound", f"{path}: there is no FineTuneJob {name!r}; create it")
        return None
    artifact: Manifest | None = (upstream.get("status") or {}).get("artifact")
    if artifact is None and (around := circle(job, name, observed.references)):
        message = f"{path}: each waits for the result of the next: {' -> '.join(around)}; give one another base"
        _refuse(conditions, "ReferenceCycle", message)
    elif artifact is None:
        message = f"FineTuneJob {name!r} has no artifact yet: {ready_message(upstream)}"
        _wait(conditions, f"{part}NotReady", message)
    return artifact


def _reference(stored: Manifest) -> StoredReference:
    return StoredReference(digest=stored["digest"], uri=stored["uri"])


def _wait(conditions: ConditionSet, reason: str, message: str) -> None:
    conditions.set("Staged", False, reason, message)
    conditions.waiting(reason, message)


def _refuse(conditions: ConditionSet, reason: str, message: str) -> None:
    conditions.set("Staged", False, reason, message)
    conditions.stalled(reason, message)
