"""What a BatchInference's status tells: what was resolved, how far it is, what came out, what it has cost."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_contract.batching import MOST_CODES
from finetune_operator.api.base import ApiModel, BaseStatus, Digest, JobFailure, ResourceStatus, Text, Token, Uri, Word
from finetune_operator.api.figures import CostStatus
from finetune_operator.api.gate import Verdict

Count = Annotated[int, Field(ge=0)]


class BatchRun(ApiModel):
    """What model and input stood for when they were looked up."""

    key: Annotated[str, StringConstraints(max_length=64)]
    """Names all that decides the answers; what was answered under it is not asked again."""
    spec: Word
    """Names the part of the spec that was looked up."""
    generation: Count = 0
    """The spec's generation that attempts were made for last."""
    attempt: Count = 0
    """The attempt that was started last."""
    started_at: datetime
    """When it was looked up."""
    rerun: Token | None = None
    """The word in spec.rerun that it was looked up for."""
    model_name: Annotated[str, StringConstraints(max_length=253)]
    """The model name that requests have to ask for."""
    base: BaseStatus
    """The model, or what the adapter is on."""
    adapter: BaseStatus | None = None
    """The adapter; unset: a whole model answers."""
    dataset: BaseStatus | None = None
    """The Dataset's revision; unset: the input are files, whose digest the output has."""
    verdict: Verdict | None = None
    """What the job's gate said when the artifact was taken; unset: there was no gate."""
    gate_ignored: bool = False
    """Whether the artifact was taken only because spec.ignoreGate says so."""


class BatchProgressStatus(ApiModel):
    """How far it is."""

    phase: Word | None = None
    """Reading, Loading, Answering or Publishing; unset while no pod runs."""
    rows: Count = 0
    """Rows that are done."""
    kept_rows: Count = 0
    """Those of them that are in the store: a pod that is lost does not lose them."""
    total_rows: Count = 0
    """Rows of the input; 0 until it is read."""
    failed: Count = 0
    """Rows that were not answered."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Done share."""
    tokens_per_second: float | None = None
    """Generated tokens per second."""
    estimated_completion_time: datetime | None = None
    """When it will end at this speed."""
    updated_at: datetime | None = None
    """When the pod said so."""


class BatchAttempt(ApiModel):
    """One try: one Job."""

    number: Annotated[int, Field(ge=1)]
    """Counts the attempts of a run."""
    run: Word
    """First characters of the run's key."""
    reason: Word
    """Succeeded, or why it ended."""
    message: Text = ""
    """What happened."""
    node: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Where it ran."""
    finished_at: datetime | None = None
    """When it ended."""
    seconds: Count = 0
    """How long its pods ran."""
    gpu_seconds: Count = 0
    """Seconds of accelerators that it used."""
    rows: Count = 0
    """Rows that were kept when it ended, those of earlier attempts among them."""


class ErrorCountStatus(ApiModel):
    """Rows that failed in one way."""

    code: Word
    """As in the error file, such as context_length_exceeded."""
    rows: Count
    """How many did."""


class BatchOutput(ApiModel):
    """The answers."""

    digest: Digest
    """Names the content of output.jsonl and errors.jsonl."""
    uri: Uri
    """The directory that holds them."""
    run: Annotated[str, StringConstraints(max_length=64)]
    """The key that was answered."""
    finished_at: datetime
    """When they were there."""
    input_digest: Digest | None = None
    """Of the files' bytes, or the Dataset's revision."""
    rows: Count = 0
    """Rows of the input."""
    succeeded: Count = 0
    """Lines of output.jsonl."""
    failed: Count = 0
    """Lines of errors.jsonl."""
    resumed_rows: Count = 0
    """Rows that earlier attempts had answered."""
    errors: Annotated[list[ErrorCountStatus], Field(max_length=MOST_CODES)] = []
    """Why rows failed."""
    prompt_tokens: Count = 0
    """Tokens of the prompts that were answered."""
    generated_tokens: Count = 0
    """Tokens of the answers."""
    seconds: float = 0.0
    """Spent on answering, over all attempts."""
    tokens_per_second: float | None = None
    """Generated tokens per second of that."""
    device: Word | None = None
    """`cpu`, or the GPU's name, of the last attempt."""
    reused: bool = False
    """Whether all was answered before, perhaps for another object."""


class BatchInferenceStatus(ResourceStatus):
    """What became of it."""

    progress_percent: Annotated[str, StringConstraints(max_length=8)] | None = None
    """Done share, for `kubectl get`."""
    run: BatchRun | None = None
    """What model and input stood for when they were looked up."""
    stage_failure: JobFailure | None = None
    """Why model.baseModel could not be brought into the store."""
    progress: BatchProgressStatus | None = None
    """How far it is."""
    attempts: Annotated[list[BatchAttempt], Field(max_length=10)] = []
    """The last ten attempts that ended, of earlier runs, too."""
    retries_used: Count = 0
    """Attempts of the run that count against retries.limit."""
    stalled_disruptions: Count = 0
    """Disruptions in a row without one row more."""
    failure: JobFailure | None = None
    """Why the run failed; an edit of the spec gives it another attempt."""
    seconds_total: Count = 0
    """How long pods ran for the run."""
    gpu_seconds_total: Count = 0
    """Seconds of accelerators that the run used."""
    cost: CostStatus | None = None
    """What the run's attempts that ended have cost."""
    output: BatchOutput | None = None
    """The newest answers; they stay while another run goes on."""
