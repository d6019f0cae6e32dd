"""ModelDeployment: a base model and adapters from jobs, served under an OpenAI-compatible address."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_operator.api.adapterfacts import AdapterFactsStatus
from finetune_operator.api.autoscaling import Autoscaling
from finetune_operator.api.base import (
    COMMON_AGE,
    COMMON_MESSAGE,
    COMMON_REASON,
    NAME_RULE,
    ApiModel,
    BaseStatus,
    Digest,
    Duration,
    JobFailure,
    Metadata,
    NameReference,
    PrinterColumn,
    ResourceMeta,
    Resources,
    ResourceStatus,
    Scheduling,
    SecretKeyReference,
    Uri,
    Word,
    exactly_one_of,
    rule,
    rules,
)
from finetune_operator.api.basemodel import BaseModelSource
from finetune_operator.api.engine import Engine
from finetune_operator.api.gate import Verdict
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.api.rollout import Rollout, RolloutStatus, Route
from finetune_operator.api.storage import STORAGE_RULE, StorageSpec


class ServedAdapterSpec(ApiModel):
    """One adapter, served under its own model name."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$")]
    """The model name that clients ask for."""
    fine_tune_job: NameReference | None = None
    """The job whose artifact is served: the newest that has passed the job's gate, or was made without one."""
    digest: Digest | None = None
    """Serves this artifact of the job and follows no newer one; of uri, what must be found there."""
    uri: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^(pvc|s3)://[^/]+/.+$")] | None = None
    """An adapter in this object's store, with its digest; no gate is known of it, so it needs spec.ignoreGate, and
    spec.baseModel says what it was trained from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("fineTuneJob", "uri"),
            rule("!has(self.uri) || has(self.digest)", "uri: set digest, too; what is served is verified by it"),
            rule(
                "!(self.name in ['tgi', 'dummy'])", "name: tgi and dummy are aliases of the base model; choose another"
            ),
        )
    )


class AdapterMode(StrEnum):
    """How adapters get into the engine."""

    STATIC = "Static"
    """Beside the base model, loaded when a pod starts; any number of them."""
    MERGED = "Merged"
    """One adapter, merged into a 16-bit base beforehand and served as a plain model: full speed, on every engine."""


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
    adapter_mode: AdapterMode = AdapterMode.STATIC
    """Static: adapters beside the base model. Merged: exactly one adapter, as a whole model; the base itself is not
    served then."""
    ignore_gate: bool = False
    """True serves artifacts whose gate failed or is not decided, and of a job always the last one made; status, an
    event and a metric say so."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many serving pods; with autoscaling, that decides."""
    autoscaling: Autoscaling | None = None
    """Lets the number of pods follow the requests that wait."""
    api_keys_secret_ref: SecretKeyReference | None = None
    """API keys, one in a line, of which clients have to send one as `Authorization: Bearer`; vLLM and TGI take only
    one, without a line's end. Unset: everybody who reaches the Service may ask."""
    rollout: Rollout = Rollout()
    """How what is served is replaced by something else."""
    route: Route | None = None
    """A way in from outside, where the cluster has the Gateway API; unset: the Service alone."""
    resources: Resources = Resources()
    """What a serving pod's engine asks for."""
    scheduling: Scheduling = Scheduling()
    """Where serving pods may run."""
    startup_timeout: Duration = "30m"
    """How long a pod may take to load the model before it is started again."""
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
            rule(
                "!has(self.adapters) || self.adapters.all(a, !has(a.uri)) || (has(self.ignoreGate) && self.ignoreGate)",
                "adapters[].uri: no gate is known of what has no FineTuneJob; set ignoreGate: true to serve it",
            ),
            rule(
                "!has(self.adapterMode) || self.adapterMode != 'Merged' || (has(self.adapters) && "
                "size(self.adapters) == 1)",
                "adapterMode: Merged serves exactly one adapter; set one in adapters, or use Static",
            ),
            rule(
                "!has(self.adapters) || self.adapters.all(a, !has(a.uri)) || has(self.baseModel)",
                "adapters[].uri: set baseModel, what the adapter was trained from",
            ),
        )
    )


class AdapterState(StrEnum):
    """How far an adapter is."""

    PENDING = "Pending"
    """Its job has no artifact yet, or none that may be served."""
    LOADING = "Loading"
    """A pod with it is not ready yet."""
    SERVING = "Serving"
    """Every pod that is wanted has proven it."""
    INERT = "Inert"
    """A pod that loaded it answers like the base; what was served before still is."""
    INVALID = "Invalid"
    """The engine cannot serve it, or a pod that loaded it answers like neither tuned model nor base, or its files are
    not what was published; what was served before still is."""
    ROLLED_BACK = "RolledBack"
    """Its canary did not hold; what was served before still is."""


class AdapterStatus(ApiModel):
    """One adapter's state."""

    name: Word
    """The model name that clients ask for."""
    state: AdapterState
    """How far it is."""
    since: datetime | None = None
    """When this artifact came into this state."""
    fine_tune_job: Word | None = None
    """The job it comes from; unset where it is named by uri."""
    digest: Digest | None = None
    """The artifact that is wanted."""
    uri: Uri | None = None
    """Where the artifact is stored."""
    base: BaseStatus | None = None
    """What the artifact was trained from."""
    adapter: AdapterFactsStatus | None = None
    """What the engine must know of it."""
    verdict: Verdict | None = None
    """What the job's gate said when it was taken; a later verdict takes nothing away. Unset: there was no gate."""
    gate_ignored: bool = False
    """Whether it is served only because spec.ignoreGate says so."""
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Why it, or what is wanted instead of it, is not serving."""


class ServedBase(ApiModel):
    """The base model that is served."""

    digest: Digest
    """Digest of its files."""
    uri: Uri
    """Where it is stored."""
    stage: Word | None = None
    """Names the baseModel that was staged; unset where it comes from the adapters."""
    gate_ignored: bool = False
    """Whether it is served only because spec.ignoreGate says so."""


class MergedModel(ApiModel):
    """The whole model that adapterMode: Merged serves."""

    base: Digest
    """What the adapter is merged into."""
    adapter: Digest
    """What is merged."""
    digest: Digest
    """Digest of the merged model's files."""
    uri: Uri
    """Where it is stored."""
    difference: float | None = None
    """Mean Kullback-Leibler divergence, in nats per token, of the merged model from base and adapter; unset where it
    had been merged before."""


class ModelDeploymentStatus(ResourceStatus):
    """What is served."""

    url: Uri | None = None
    """The OpenAI-compatible address."""
    base: ServedBase | None = None
    """The base model that is served."""
    stage_failure: JobFailure | None = None
    """Why the base model could not be staged."""
    merged: MergedModel | None = None
    """The adapter and its base as one model; only with adapterMode: Merged."""
    merge_failure: JobFailure | None = None
    """Why they could not be merged."""
    adapters: Annotated[list[AdapterStatus], Field(max_length=32)] = []
    """Each adapter's state."""
    rollout: RolloutStatus | None = None
    """Where a canary roll-out is; only with spec.rollout.canary."""
    extras: Annotated[list[Word], Field(max_length=8)] = []
    """Kinds of the objects beside Deployment and Service that are kept for it."""
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
