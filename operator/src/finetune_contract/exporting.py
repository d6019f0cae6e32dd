"""What an export pod is asked to make of a published artifact, and what it says it has made."""

import hashlib
import json
from enum import StrEnum
from typing import Literal, Self

from pydantic import model_validator

from finetune_contract.base import Address, Count, Document, Sha256, StoredReference
from finetune_contract.evaluating import Score
from finetune_contract.failure import Failure
from finetune_contract.results import Artifact
from finetune_contract.storage import StorePlan
from finetune_contract.training import TrainingPlan


class ExportType(StrEnum):
    """What is made of an artifact."""

    MERGED_MODEL = "MergedModel"
    """A whole model in 16 bits: the base with the adapter in its weights."""
    GGUF = "GGUF"
    """The whole model in one file for llama.cpp and what is built on it."""
    GGUF_ADAPTER = "GGUFAdapter"
    """The adapter alone in one file, for llama.cpp's `--lora`."""
    HUB = "Hub"
    """A branch of a model repository on the Hugging Face Hub."""


class Quantization(StrEnum):
    """How a GGUF file holds the weights, by llama.cpp's names: those its converter writes itself."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"


class HubContent(StrEnum):
    """What is pushed to the Hub."""

    ARTIFACT = "Artifact"
    MERGED_MODEL = "MergedModel"


class HubTarget(Document):
    """Where on the Hub; the token comes as an environment variable."""

    repo: str
    revision: str = "main"
    private: bool = True
    content: HubContent = HubContent.ARTIFACT


class ExportSettings(Document):
    """One export."""

    type: ExportType
    quantization: Quantization | None = None
    """Of GGUF and GGUFAdapter."""
    hub: HubTarget | None = None
    """Of Hub."""

    def key_for(self, artifact: Sha256) -> str:
        """Names the export of one artifact: what has been made under a key is not made again."""
        wanted = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        document = {"artifact": artifact, "export": wanted}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class Cost(Document):
    """What a run took, over all its attempts."""

    seconds: Count = 0
    gpu_seconds: Count = 0


class ExportPlan(Document):
    """Make one export of a published artifact."""

    version: Literal[1] = 1
    training: TrainingPlan
    """How the artifact was trained; for the model card."""
    artifact: Artifact
    export: ExportSettings
    evaluation: tuple[Score, ...] = ()
    """What was measured last; for the model card."""
    cost: Cost = Cost()


class MergePlan(StorePlan):
    """Make the whole model of an adapter on a base, for serving."""

    version: Literal[1] = 1
    name: str
    """The ModelDeployment's."""
    namespace: str
    base: StoredReference
    artifact: StoredReference
    """The adapter."""

    @property
    def key(self) -> str:
        """Names the merged model of this adapter on this base: what has been made under a key is not made again."""
        return hashlib.sha256(f"merged\n{self.base.digest}\n{self.artifact.digest}".encode()).hexdigest()


class ExportResult(Document):
    """What an export pod leaves."""

    digest: Sha256 | None = None
    """Digest of the files; of a push, of what was pushed."""
    uri: Address | None = None
    """Where they are: in the store, or on the Hub."""
    bytes: Count = 0
    difference: float | None = None
    """Mean Kullback-Leibler divergence, in nats per token, of the merged model from base and adapter."""
    reused: bool = False
    """It had been made before: nothing was made now."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.failure is None) == (self.digest is None or self.uri is None):
            raise ValueError("a result has either a failure or what was made")
        return self
