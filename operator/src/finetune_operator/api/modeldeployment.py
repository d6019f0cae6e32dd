"""ModelDeployment: a base model and adapters from jobs, served under an OpenAI-compatible address."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_operator.api.base import (
    COMMON_AGE,
    COMMON_MESSAGE,
    COMMON_REASON,
    NAME_RULE,
    ApiModel,
    BaseStatus,
    Digest,
    JobFailure,
    Metadata,
    NameReference,
    PrinterColumn,
    ResourceMeta,
    Resources,
    ResourceStatus,
    Scheduling,
    Uri,
    Word,
    rule,
    rules,
)
from finetune_operator.api.basemodel import BaseModelSource
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.api.storage import STORAGE_RULE, StorageSpec


class EngineType(StrEnum):
    """What serves."""

    TRANSFORMERS = "Transformers"


class Engine(ApiModel):
    """What serves."""

    type: EngineType = EngineType.TRANSFORMERS
    """Transformers: our own server on transformers and peft, for CPUs and small GPUs."""
    max_batch_size: Annotated[int, Field(ge=1, le=256)] = 16
    """Requests that are answered together."""
    max_queue: Annotated[int, Field(ge=1, le=10_000)] = 128
    """Requests that may wait; more are refused with 429."""


class ServedAdapterSpec(ApiModel):
    """One adapter, served under its own model name."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$")]
    """The model name that clients ask for."""
    fine_tune_job: NameReference
    """The job whose newest artifact is served."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!(self.name in ['tgi', 'dummy'])", "name: tgi and dummy are aliases of the base model; choose another"
            )
        )
    )


class ModelDeploymentSpec(ApiModel):
    """What to serve."""

    base_model: BaseModelSource | None = None
    """The base model; unset: what the adapters were trained from."""
    engine: Engine = Engine()
    """The server that runs in each pod, and its limits."""
    adapters: Annotated[
        list[ServedAdapterSpec],
        Field(
            max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        ),
    ] = []
    """Adapters that are served beside the base."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many serving pods."""
    resources: Resources = Resources()
    """What a serving pod's engine asks for."""
    scheduling: Scheduling = Scheduling()
    """Where serving pods may run."""
    pod_template: PodTemplate = PodTemplate()
    """What the pods get beside what the operator gives them."""
    storage: StorageSpec | None = None
    """Where the adapters are and a base model is kept; unset: where the operator's settings say."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            STORAGE_RULE,
            rule(
                "has(self.baseModel) || (has(self.adapters) && size(self.adapters) > 0)",
                "set baseModel or at least one of adapters: there is nothing to serve",
            ),
        )
    )


class AdapterState(StrEnum):
    """How far an adapter is."""

    PENDING = "Pending"
    """Its job has no artifact yet."""
    LOADING = "Loading"
    """A pod with it is not ready yet."""
    SERVING = "Serving"
    """Every pod that is wanted has proven it."""


class AdapterStatus(ApiModel):
    """One adapter's state."""

    name: Word
    """The model name that clients ask for."""
    state: AdapterState
    """How far it is."""
    fine_tune_job: Word
    """The job it comes from."""
    digest: Digest | None = None
    """The artifact that is wanted."""
    uri: Uri | None = None
    """Where the artifact is stored."""
    base: BaseStatus | None = None
    """What the artifact was trained from."""
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Why it is not serving."""


class ServedBase(ApiModel):
    """The base model that is served."""

    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""
    stage: Word | None = None
    """Names the baseModel that was staged; unset where it comes from the adapters."""


class ModelDeploymentStatus(ResourceStatus):
    """What is served."""

    url: Uri | None = None
    """The OpenAI-compatible address."""
    base: ServedBase | None = None
    """The base model that is served."""
    stage_failure: JobFailure | None = None
    """Why the base model could not be staged."""
    adapters: Annotated[list[AdapterStatus], Field(max_length=32)] = []
    """Each adapter's state."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Serving pods there are."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Serving pods that are proven and ready."""
    selector: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Label selector of the serving pods."""


class ModelDeployment(ApiModel):
    """Serves a base model and adapters from FineTuneJobs."""

    metadata: Metadata
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()


META = ResourceMeta(
    kind="ModelDeployment",
    plural="modeldeployments",
    short_names=("mdep",),
    columns=(
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Ready", ".status.readyReplicas", "integer"),
        PrinterColumn("URL", ".status.url"),
        COMMON_REASON,
        PrinterColumn("Engine", ".spec.engine.type", wide=True),
        COMMON_MESSAGE,
        COMMON_AGE,
    ),
    scale=True,
)
ROOT_RULES = (
    NAME_RULE,
    rule(
        "!has(self.spec.adapters) || !self.spec.adapters.exists(a, a.name == self.metadata.name)",
        "spec.adapters: the deployment's own name is the base model's; give the adapter another",
    ),
)
