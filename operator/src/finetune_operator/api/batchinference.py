"""BatchInference: many prompts through one model, once; the answers in OpenAI's batch format."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_operator.api.base import (
    COMMON_AGE,
    COMMON_MESSAGE,
    COMMON_REASON,
    NAME_RULE,
    ApiModel,
    Digest,
    Duration,
    Fraction,
    Metadata,
    Name,
    NameReference,
    PrinterColumn,
    ResourceMeta,
    Resources,
    Token,
    VolumePath,
    exactly_one_of,
    rule,
    rules,
)
from finetune_operator.api.basemodel import BaseModelSource
from finetune_operator.api.batchinferencestatus import BatchInferenceStatus
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.api.queueing import JobScheduling
from finetune_operator.api.sources import ConfigMapSource, HttpSource, InlineSource, S3Data
from finetune_operator.api.storage import STORAGE_RULE, StorageSpec


class BatchModel(ApiModel):
    """What answers: exactly one of fineTuneJob, baseModel."""

    fine_tune_job: NameReference | None = None
    """The job whose artifact answers, an adapter on its own base or a whole model: the newest that has passed the job's
    gate, or was made without one."""
    digest: Digest | None = None
    """This artifact of the job, and no newer one."""
    base_model: BaseModelSource | None = None
    """A model as it is."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    """The model name that requests have to ask for; unset: the FineTuneJob's name, or this object's."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("fineTuneJob", "baseModel"),
            rule("!has(self.digest) || has(self.fineTuneJob)", "digest: names an artifact of fineTuneJob; set it, too"),
            rule(
                "!has(self.baseModel) || !has(self.baseModel.fineTuneJob)",
                "baseModel.fineTuneJob: set model.fineTuneJob instead",
            ),
        )
    )


class DatasetSplit(ApiModel):
    """Rows of a Dataset of the same namespace."""

    name: Name
    """The Dataset's name; its revision is resolved once."""
    split: Literal["train", "validation", "test"] = "test"
    """Which of its rows; their prompts are rendered as training renders them."""


class Requests(ApiModel):
    """Files of requests in OpenAI's batch input format, one a line: exactly one."""

    inline: InlineSource | None = None
    """Requests in the YAML itself."""
    config_map: ConfigMapSource | None = None
    """Requests in a ConfigMap."""
    http: HttpSource | None = None
    """Files to download."""
    persistent_volume_claim: VolumePath | None = None
    """Files in a volume; path may be a glob such as `requests/*.jsonl`."""
    s3: S3Data | None = None
    """Objects of an S3-compatible store."""

    model_config = ConfigDict(
        json_schema_extra=rules(exactly_one_of("inline", "configMap", "http", "persistentVolumeClaim", "s3"))
    )


class BatchInputSpec(ApiModel):
    """What is answered: exactly one."""

    dataset: DatasetSplit | None = None
    """Rows of a Dataset."""
    jsonl: Requests | None = None
    """Requests of your own: `custom_id`, `method`, `url`, `body`."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("dataset", "jsonl")))


class BatchSamplingSpec(ApiModel):
    """How answers are chosen; a request's own fields come first."""

    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 256
    """The most tokens of an answer."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 always takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the most likely tokens that together reach this probability."""
    stop: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=16)] = []
    """Texts that end an answer."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Of sampling; each row has random numbers of its own."""


class BatchRetries(ApiModel):
    """How failures are met."""

    limit: Annotated[int, Field(ge=0, le=20)] = 2
    """New attempts after failures that may pass; evictions and lost nodes do not count."""


class BatchLimits(ApiModel):
    """Where a batch is stopped; what was answered is kept, and a higher limit goes on from there."""

    duration: Duration | None = None
    """How long its pods may run in all, for example `8h`; waiting, queues and pauses do not count."""
    gpu_hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """GPU-hours that it may use over all attempts."""


class BatchInferenceSpec(ApiModel):
    """What is asked, and who answers."""

    model_config = ConfigDict(json_schema_extra=rules(STORAGE_RULE))

    model: BatchModel
    """What answers."""
    input: BatchInputSpec
    """What is answered: exactly one."""
    sampling: BatchSamplingSpec = BatchSamplingSpec()
    """How answers are chosen."""
    max_error_share: Fraction = 0.0
    """Share of the rows that may stay without an answer: lines that are no requests, prompts over the context."""
    ignore_gate: bool = False
    """True takes an artifact whose gate failed or is not decided, and always the last one made; status and an event say
    so."""
    retries: BatchRetries = BatchRetries()
    """How often failures that may pass are tried again; what was answered is not asked again."""
    limits: BatchLimits = BatchLimits()
    """Where it is stopped."""
    resources: Resources = Resources()
    """What the pod asks for, such as `limits: {nvidia.com/gpu: 1}`."""
    scheduling: JobScheduling = JobScheduling()
    """Where the pod may run, and the queue that it waits in."""
    pod_template: PodTemplate = PodTemplate()
    """What the pods get beside what the operator gives them."""
    storage: StorageSpec | None = None
    """Where model and input are and the answers are kept; unset: where the operator's settings say."""
    suspend: bool = False
    """True stops the pod and frees the GPU; false goes on from what was answered."""
    rerun: Token | None = None
    """Any new word looks model and input up again, such as files that have changed; equal ones are not answered again.

    Removing the word does nothing.
    """
    ttl_after_finished: Duration | None = None
    """How long finished Jobs and their pods (with their logs) are kept, for example `24h`; unset: with the object.

    The answers, and this status, stay.
    """


class BatchInference(ApiModel):
    """Answers many prompts with one model, once, and keeps the answers."""

    metadata: Metadata
    spec: BatchInferenceSpec
    status: BatchInferenceStatus = BatchInferenceStatus()


META = ResourceMeta(
    kind="BatchInference",
    plural="batchinferences",
    short_names=("binf",),
    columns=(
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Progress", ".status.progressPercent"),
        PrinterColumn("Rows", ".status.progress.rows", "integer"),
        PrinterColumn("Failed", ".status.progress.failed", "integer"),
        COMMON_REASON,
        PrinterColumn("Total", ".status.progress.totalRows", "integer", wide=True),
        PrinterColumn("Tokens/s", ".status.progress.tokensPerSecond", "number", wide=True),
        PrinterColumn("Queue", ".spec.scheduling.queueName", wide=True),
        PrinterColumn("Output", ".status.output.digest", wide=True),
        COMMON_MESSAGE,
        COMMON_AGE,
    ),
)
ROOT_RULES = (NAME_RULE,)
