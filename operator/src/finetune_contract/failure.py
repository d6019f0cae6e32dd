"""The one enumeration of why things fail, with what each means for retries and what a person can do.

Used for exit codes, podFailurePolicy, condition reasons, events, metrics and the reference page.
"""

from enum import StrEnum
from typing import NamedTuple

from finetune_contract.base import Document


class FailureReason(StrEnum):
    """Why a pod or a resource failed, or does not get on."""

    INVALID_PLAN = "InvalidPlan"
    CONTRACT_VIOLATION = "ContractViolation"
    DATASET_INVALID = "DatasetInvalid"
    BAD_ROW = "BadRow"
    PERSONAL_DATA_FOUND = "PersonalDataFound"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_ACCESS_DENIED = "SourceAccessDenied"
    SOURCE_CHANGED = "SourceChanged"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    TOKENIZER_MISMATCH = "TokenizerMismatch"
    ADAPTER_MISMATCH = "AdapterMismatch"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    INSUFFICIENT_GPU_MEMORY = "InsufficientGpuMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    EPHEMERAL_STORAGE_FULL = "EphemeralStorageFull"
    STORAGE_FULL = "StorageFull"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    STORAGE_ACCESS_DENIED = "StorageAccessDenied"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    CHECKPOINT_CORRUPT = "CheckpointCorrupt"
    NON_FINITE_LOSS = "NonFiniteLoss"
    LOSS_DIVERGED = "LossDiverged"
    DATA_TRUNCATED = "DataTruncated"
    EVALUATION_FAILED = "EvaluationFailed"
    REWARD_FAILED = "RewardFailed"
    REQUESTS_FAILED = "RequestsFailed"
    NCCL_TIMEOUT = "NcclTimeout"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    POD_DELETED = "PodDeleted"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    POD_SECURITY_DENIED = "PodSecurityDenied"
    QUOTA_EXCEEDED = "QuotaExceeded"
    TRAINER_CRASHED = "TrainerCrashed"
    SERVER_CRASHED = "ServerCrashed"
    EXPORT_FAILED = "ExportFailed"
    EXPORT_DENIED = "ExportDenied"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    GPU_HOURS_EXCEEDED = "GpuHoursExceeded"
    GATE_FAILED = "GateFailed"
    CANCELLED = "Cancelled"
    NO_PROGRESS = "NoProgress"
    UNKNOWN = "Unknown"


class Policy(NamedTuple):
    """What a reason means."""

    exit_code: int | None
    """The code a pod exits with, or None where only Kubernetes or the operator can tell."""
    retried: bool
    """Whether a new attempt can help without anybody changing anything."""
    counts: bool
    """Whether the attempt counts against `spec.retries.limit`."""
    detected: str
    """Who notices it, and by what, in one sentence."""
    remedy: str
    """What a person can do, in one sentence."""


# fmt: off
# Three lines each: exit code, retried, counts; how it is detected; the remedy.
_POLICIES: dict[FailureReason, Policy] = {
    FailureReason.INVALID_PLAN: Policy(
        64, False, True,
        "A pod finds two fields of its plan that cannot go together, or a path that leaves its volume.",
        "Mend the field the message names, then apply again.",
    ),
    FailureReason.CONTRACT_VIOLATION: Policy(
        65, False, True,
        "A pod cannot read its plan, or the operator cannot read the result that a pod left.",
        "Use operator and trainer images of the same release (chart value trainerImage).",
    ),
    FailureReason.DATASET_INVALID: Policy(
        66, False, True,
        "The rows cannot be read in the given format, or none is left to train or evaluate on.",
        "Mend the data or spec.columns as the message says.",
    ),
    FailureReason.BAD_ROW: Policy(
        67, False, True,
        "More rows than spec.prepare.maxBadRows allows cannot be read; the message has the first one's file and line.",
        "Mend the line the message names, or allow some with spec.prepare.maxBadRows.",
    ),
    FailureReason.PERSONAL_DATA_FOUND: Policy(
        93, False, True,
        "Rows have personal data and spec.prepare.personalData is Fail; the message has kinds, numbers and a line.",
        "Remove it from the source, or choose Redact or DropRow.",
    ),
    FailureReason.SOURCE_UNAVAILABLE: Policy(
        68, True, True,
        "The Hub, object store, address or volume that data or a model comes from does not answer, or with an error.",
        "Check the address; a proxy (HTTPS_PROXY) or a mirror of the Hub (HF_ENDPOINT) is set in spec.podTemplate.env.",
    ),
    FailureReason.SOURCE_NOT_FOUND: Policy(
        90, False, True,
        "The source has no such repository, revision, split, object or file; or its claim or ConfigMap is not there.",
        "Check the names in spec.source; a claim or ConfigMap that is not there is waited for: create it.",
    ),
    FailureReason.SOURCE_ACCESS_DENIED: Policy(
        91, False, True,
        "The source of a Dataset answers 401 or 403.",
        "Check the token's or the credentials' Secret in spec.source, and accept the repository's terms on the Hub.",
    ),
    FailureReason.SOURCE_CHANGED: Policy(
        92, True, True,
        "A file or object has another ETag, size or time of change after it was read than before.",
        "Write new data under new names; the reading is tried again.",
    ),
    FailureReason.MODEL_NOT_FOUND: Policy(
        69, False, True,
        "The base model's source has no such repository, revision or path, or what is there is no model.",
        "Check spec.baseModel: repository, revision or path.",
    ),
    FailureReason.MODEL_ACCESS_DENIED: Policy(
        70, False, True,
        "The base model's source answers 401 or 403.",
        "Accept the model's licence on the Hub and check the token's Secret in spec.baseModel.",
    ),
    FailureReason.TOKENIZER_MISMATCH: Policy(
        71, False, True,
        "Before step 0: the tokenizer has ids the embeddings lack, or no chat template where the data needs one.",
        "Use a base model whose tokenizer fits its embeddings and has the template the data needs.",
    ),
    FailureReason.ADAPTER_MISMATCH: Policy(
        84, False, True,
        "Before step 0: the adapter that training is to go on from was made on another base than the plan's.",
        "Name a job whose adapter was trained on this base, or train the adapter anew.",
    ),
    FailureReason.GPU_OUT_OF_MEMORY: Policy(
        72, False, True,
        "The training process catches CUDA's out-of-memory error.",
        "Lower hyperparameters.microBatchSize or maxLength, or use a smaller adapter or a larger GPU.",
    ),
    FailureReason.INSUFFICIENT_GPU_MEMORY: Policy(
        None, False, False,
        "Before a GPU is asked for: the preflight predicts a peak of memory above 92 % of what the GPU has.",
        "Make one of the changes that the message names, or go on regardless with spec.preflight: Warn.",
    ),
    FailureReason.HOST_OUT_OF_MEMORY: Policy(
        137, False, True,
        "The kernel kills the container over its memory limit (OOMKilled), or an allocation fails in the process.",
        "Raise spec.resources.limits.memory.",
    ),
    FailureReason.EPHEMERAL_STORAGE_FULL: Policy(
        81, True, True,
        "The kubelet evicts the pod over its ephemeral-storage or emptyDir limit, or its node's disk is full.",
        "Raise spec.resources.limits.ephemeral-storage, or use nodes with larger disks.",
    ),
    FailureReason.STORAGE_FULL: Policy(
        73, True, True,
        "A write to the store says that no space or quota is left (ENOSPC, EDQUOT; S3: QuotaExceeded, status 507).",
        "Enlarge the claim or the bucket's quota, or delete artifacts nobody uses.",
    ),
    FailureReason.STORAGE_UNAVAILABLE: Policy(
        74, True, True,
        "A volume cannot be bound, attached or mounted, or reading and writing it fails; or S3 does not answer.",
        "Check the claim and its volume, or that the S3 endpoint answers and has the bucket.",
    ),
    FailureReason.STORAGE_ACCESS_DENIED: Policy(
        85, False, True,
        "The S3 server that the store is on answers 401 or 403, or the pod has no credentials for it.",
        "Check the Secret in storage.s3.credentialsSecretRef, or what the pods' ServiceAccount may do in the bucket.",
    ),
    FailureReason.CHECKSUM_MISMATCH: Policy(
        94, True, True,
        "A file of a dataset revision, model or artifact differs from its manifest (size, sha256), or is missing.",
        "Publish it again under another name: read the Dataset anew (spec.rerun), or run the job that made it anew.",
    ),
    FailureReason.CHECKPOINT_CORRUPT: Policy(
        75, True, True,
        "Every checkpoint there is differs from its manifest (sizes, sha256); older ones were tried, too.",
        "Look at the volume's or bucket's health; the next attempt trains from the beginning.",
    ),
    FailureReason.NON_FINITE_LOSS: Policy(
        76, False, True,
        "The training loss is NaN or infinite at a logged step.",
        "Lower hyperparameters.learningRate, or look for broken rows in the dataset.",
    ),
    FailureReason.LOSS_DIVERGED: Policy(
        80, False, True,
        "The training loss stays far above where it was (median and median absolute deviation of the last steps).",
        "Lower hyperparameters.learningRate, or raise hyperparameters.warmupSteps.",
    ),
    FailureReason.DATA_TRUNCATED: Policy(
        77, False, True,
        "By the Dataset's statistics, or before step 0: maxLength would cut more than limits.truncatedShare allows.",
        "Raise hyperparameters.maxLength, or allow the loss with limits.truncatedShare.",
    ),
    FailureReason.EVALUATION_FAILED: Policy(
        82, True, True,
        "A judge gives no verdict on too many rows, a named baseline cannot be asked or read, or a task cannot be run.",
        "Check what spec.evaluation names: judge, namedBaselines, rewardModel, benchmark; the artifact is kept.",
    ),
    FailureReason.REWARD_FAILED: Policy(
        83, False, True,
        "A reward raises an error for an answer instead of judging it; the message has both.",
        "Mend the reward that the message names (its pattern, schema or model), then apply again.",
    ),
    FailureReason.REQUESTS_FAILED: Policy(
        95, False, True,
        "More rows of a batch than maxErrorShare allows cannot be answered; the message has the first one's line.",
        "Mend the lines the message names, or allow some with maxErrorShare: what was answered is not asked again.",
    ),
    FailureReason.NCCL_TIMEOUT: Policy(
        79, True, True,
        "Ranks of one attempt wait for each other longer than the collective operations' time limit.",
        "Look for a lost peer or a blocked network; raise parallelism.timeoutSeconds if steps are long.",
    ),
    FailureReason.PREEMPTED: Policy(
        78, True, False,
        "The pod was told to stop (SIGTERM), or the scheduler made room for a pod of higher priority.",
        "Nothing: training resumes from its checkpoint.",
    ),
    FailureReason.EVICTED: Policy(
        None, True, False,
        "The pod has the condition DisruptionTarget (a drain, a full or shut down node), or its status says Evicted.",
        "Nothing: training resumes from its checkpoint.",
    ),
    FailureReason.NODE_LOST: Policy(
        None, True, False,
        "The node is gone, unreachable or restarted, and nobody saw the container's end.",
        "Nothing: training resumes from its checkpoint.",
    ),
    FailureReason.POD_DELETED: Policy(
        None, True, False,
        "The pod was deleted while it ran, or the attempt's Job before its end was seen.",
        "Nothing: training resumes from its checkpoint.",
    ),
    FailureReason.IMAGE_PULL_FAILED: Policy(
        None, False, False,
        "A container waits with ErrImagePull, ImagePullBackOff or InvalidImageName; the kubelet goes on trying.",
        "Check the image's name (chart values) and the namespace's pull secrets.",
    ),
    FailureReason.UNSCHEDULABLE: Policy(
        None, False, False,
        "The pod's condition PodScheduled is False; the message has the scheduler's words.",
        "Free or add nodes that satisfy spec.resources, or lower the requests.",
    ),
    FailureReason.POD_SECURITY_DENIED: Policy(
        None, False, False,
        "Pod Security admission refuses a Job, Deployment or their pods.",
        "Take back what the message names in spec.podTemplate or spec.engine: by default our pods pass `restricted`.",
    ),
    FailureReason.QUOTA_EXCEEDED: Policy(
        None, False, False,
        "A ResourceQuota refuses a Job, Deployment, claim or their pods.",
        "Lower spec.resources, or ask for more quota.",
    ),
    FailureReason.TRAINER_CRASHED: Policy(
        1, True, True,
        "The process ended by an error or signal that has no name here.",
        "The message holds the log's last lines, `kubectl finetune logs` all of a job's: the cause is there.",
    ),
    FailureReason.SERVER_CRASHED: Policy(
        96, True, False,
        "A container of a serving pod ended by an error or signal that has no name here; the kubelet starts it again.",
        "The message holds the log's last lines, `kubectl logs --previous` all of them: the cause is there.",
    ),
    FailureReason.EXPORT_FAILED: Policy(
        86, False, True,
        "A merged model does not answer like base and adapter, or llama.cpp's converter cannot read the model.",
        "Remove that entry of spec.exports (or set adapterMode: Static), or change it as the message says.",
    ),
    FailureReason.EXPORT_DENIED: Policy(
        87, False, True,
        "The Hub answers 401 or 403 to a push.",
        "Put a token that may write to the repository into the Secret of the entry's hub.tokenSecretRef.",
    ),
    FailureReason.DEADLINE_EXCEEDED: Policy(
        None, False, False,
        "The run has taken longer than spec.limits.duration.",
        "Raise spec.limits.duration: training resumes from its checkpoint.",
    ),
    FailureReason.GPU_HOURS_EXCEEDED: Policy(
        None, False, False,
        "All attempts of the run together have used spec.limits.gpuHours.",
        "Raise spec.limits.gpuHours: training resumes from its checkpoint.",
    ),
    FailureReason.GATE_FAILED: Policy(
        None, False, False,
        "The operator finds a rule of spec.gate that the artifact's measurements do not meet.",
        "Train on more or better data, or relax the rule that the message names: nothing is trained for that.",
    ),
    FailureReason.CANCELLED: Policy(
        None, False, False,
        "Somebody stopped the run before its end.",
        "Nothing, unless it was a mistake: then start it again.",
    ),
    FailureReason.NO_PROGRESS: Policy(
        None, False, True,
        "Five disruptions in a row without a newer checkpoint between them.",
        "Lower checkpoints.intervalMinutes, or use nodes that are disrupted less often.",
    ),
    FailureReason.UNKNOWN: Policy(
        None, True, True,
        "The pod was gone before its end was seen and the store has no result, or the reason is of another release.",
        "Look at the pod's events; a new attempt is started if spec.retries.limit allows it.",
    ),
}
# fmt: on

_BY_EXIT_CODE = {policy.exit_code: reason for reason, policy in _POLICIES.items() if policy.exit_code is not None}

_BY_WORD = {reason.value: reason for reason in FailureReason}


def policy_of(reason: FailureReason) -> Policy:
    """What a reason means for retries, and its remedy."""
    return _POLICIES[reason]


def reason_of(word: str) -> FailureReason:
    """The reason that a word names; Unknown for a word of another release."""
    return _BY_WORD.get(word, FailureReason.UNKNOWN)


def reason_of_exit_code(code: int) -> FailureReason:
    """The reason an exit code stands for; TrainerCrashed for codes nobody has claimed, whatever ran there."""
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
