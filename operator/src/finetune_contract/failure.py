"""The one enumeration of why things fail, with what each means for retries and what a person can do.

Used for exit codes, podFailurePolicy, condition reasons, events, metrics and the reference page.
"""

from enum import StrEnum
from typing import NamedTuple

from finetune_contract.base import Document


class FailureReason(StrEnum):
    """Why a pod or a resource failed."""

    INVALID_PLAN = "InvalidPlan"
    CONTRACT_VIOLATION = "ContractViolation"
    DATASET_INVALID = "DatasetInvalid"
    BAD_ROW = "BadRow"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    TOKENIZER_MISMATCH = "TokenizerMismatch"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    STORAGE_FULL = "StorageFull"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    CHECKPOINT_CORRUPT = "CheckpointCorrupt"
    NON_FINITE_LOSS = "NonFiniteLoss"
    LOSS_DIVERGED = "LossDiverged"
    DATA_TRUNCATED = "DataTruncated"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    POD_DELETED = "PodDeleted"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    POD_SECURITY_DENIED = "PodSecurityDenied"
    QUOTA_EXCEEDED = "QuotaExceeded"
    TRAINER_CRASHED = "TrainerCrashed"
    NO_PROGRESS = "NoProgress"
    UNKNOWN = "Unknown"


class Policy(NamedTuple):
    """What a reason means."""

    exit_code: int | None
    """The code a pod exits with, or None where only Kubernetes can tell."""
    retried: bool
    """Whether a new attempt can help without anybody changing anything."""
    counts: bool
    """Whether the attempt counts against `spec.retries.limit`."""
    remedy: str
    """What a person can do, in one sentence."""


_POLICIES: dict[FailureReason, Policy] = {
    FailureReason.INVALID_PLAN: Policy(64, False, True, "Mend the field the message names, then apply again."),
    FailureReason.CONTRACT_VIOLATION: Policy(
        65, False, True, "Use operator and trainer images of the same release (chart value trainerImage)."
    ),
    FailureReason.DATASET_INVALID: Policy(66, False, True, "Mend the data or spec.columns as the message says."),
    FailureReason.BAD_ROW: Policy(
        67, False, True, "Mend the line the message names, or allow some with spec.prepare.maxBadRows."
    ),
    FailureReason.SOURCE_UNAVAILABLE: Policy(68, True, True, "Check the source's address and that it answers."),
    FailureReason.MODEL_NOT_FOUND: Policy(69, False, True, "Check spec.baseModel: repository, revision or path."),
    FailureReason.MODEL_ACCESS_DENIED: Policy(
        70, False, True, "Accept the model's licence on the Hub and check the token's Secret in spec.baseModel."
    ),
    FailureReason.TOKENIZER_MISMATCH: Policy(
        71, False, True, "Use a base model whose tokenizer fits its embeddings and has the template the data needs."
    ),
    FailureReason.GPU_OUT_OF_MEMORY: Policy(
        72, False, True, "Lower hyperparameters.microBatchSize or maxLength, or use a smaller adapter or a larger GPU."
    ),
    FailureReason.HOST_OUT_OF_MEMORY: Policy(137, False, True, "Raise spec.resources.limits.memory."),
    FailureReason.STORAGE_FULL: Policy(73, True, True, "Enlarge the claim, or delete artifacts nobody uses."),
    FailureReason.STORAGE_UNAVAILABLE: Policy(74, True, True, "Check the claim and its volume."),
    FailureReason.CHECKPOINT_CORRUPT: Policy(75, True, True, "Nothing: older checkpoints are tried first."),
    FailureReason.NON_FINITE_LOSS: Policy(
        76, False, True, "Lower hyperparameters.learningRate, or look for broken rows in the dataset."
    ),
    FailureReason.LOSS_DIVERGED: Policy(
        80, False, True, "Lower hyperparameters.learningRate, or raise hyperparameters.warmupSteps."
    ),
    FailureReason.DATA_TRUNCATED: Policy(
        77, False, True, "Raise hyperparameters.maxLength, or allow the loss with limits.truncatedShare."
    ),
    FailureReason.PREEMPTED: Policy(78, True, False, "Nothing: training resumes from its checkpoint."),
    FailureReason.EVICTED: Policy(None, True, False, "Nothing: training resumes from its checkpoint."),
    FailureReason.NODE_LOST: Policy(None, True, False, "Nothing: training resumes from its checkpoint."),
    FailureReason.POD_DELETED: Policy(None, True, False, "Nothing: training resumes from its checkpoint."),
    FailureReason.IMAGE_PULL_FAILED: Policy(
        None, False, False, "Check the trainer image's name and the namespace's pull secrets."
    ),
    FailureReason.UNSCHEDULABLE: Policy(
        None, False, False, "Free or add nodes that satisfy spec.resources, or lower the requests."
    ),
    FailureReason.POD_SECURITY_DENIED: Policy(None, False, False, "Ask the platform team: admission refused the pod."),
    FailureReason.QUOTA_EXCEEDED: Policy(None, False, False, "Lower spec.resources, or ask for more quota."),
    FailureReason.TRAINER_CRASHED: Policy(1, True, True, "The message holds the log's last lines: the cause is there."),
    FailureReason.NO_PROGRESS: Policy(
        None, False, True, "Five disruptions without a newer checkpoint: lower checkpoints.intervalMinutes."
    ),
    FailureReason.UNKNOWN: Policy(None, True, True, "Look at the pod's events; a new attempt was started."),
}

_BY_EXIT_CODE = {policy.exit_code: reason for reason, policy in _POLICIES.items() if policy.exit_code is not None}

_BY_WORD = {reason.value: reason for reason in FailureReason}

CANNOT_BE_RETRIED_EXIT_CODES = sorted(
    policy.exit_code for policy in _POLICIES.values() if policy.exit_code and not policy.retried
)


def policy_of(reason: FailureReason) -> Policy:
    """What a reason means for retries, and its remedy."""
    return _POLICIES[reason]


def reason_of(word: str) -> FailureReason:
    """The reason that a word names; Unknown for a word of another release."""
    return _BY_WORD.get(word, FailureReason.UNKNOWN)


def reason_of_exit_code(code: int) -> FailureReason:
    """The reason an exit code stands for; TrainerCrashed for codes nobody has claimed."""
    return _BY_EXIT_CODE.get(code, FailureReason.TRAINER_CRASHED)


class Failure(Document):
    """A named failure with what happened."""

    reason: FailureReason
    message: str
    """What happened, naming the YAML path, file and line, or step where there is one; at most 1,024 characters."""


class FineTuneError(Exception):
    """A failure with a name: raised anywhere in a pod, converted once to a result and an exit code at the edge."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        """Take the reason and what happened (the YAML path, file and line where there is one)."""
        super().__init__(message)
        self.reason = reason

    def to_failure(self) -> Failure:
        """As a document, cut to what fits a termination message."""
        return Failure(reason=self.reason, message=str(self)[:1024])
