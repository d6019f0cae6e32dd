"""What a serving pod is asked for."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_contract.base import Document, StoredReference
from finetune_contract.storage import StorePlan


class EngineType(StrEnum):
    """What serves."""

    TRANSFORMERS = "Transformers"
    """Our own server on transformers and peft."""
    VLLM = "VLLM"
    TGI = "TGI"
    """Text Generation Inference."""


class ServedAdapter(Document):
    """One adapter of a serving pod."""

    name: Annotated[str, Field(min_length=1)]
    """The model name that clients ask for."""
    artifact: StoredReference


class ServingPlan(StorePlan):
    """What a serving pod serves, and has to prove.

    The init container verifies `base` in the store and copies each adapter, the merged one for its probe, to
    `/adapters/<name>/<digest hex>`.
    """

    version: Literal[1] = 1
    name: str
    """The ModelDeployment's name: the base model's own model name, beside the aliases `tgi` and `dummy`."""
    namespace: str
    engine: EngineType = EngineType.TRANSFORMERS
    """Decides how the prober asks."""
    base: StoredReference
    adapters: tuple[ServedAdapter, ...] = ()
    merged: ServedAdapter | None = None
    """The adapter whose merged model `base` is; then `name` is its model name and there are no others."""
    max_batch_size: int = 16
    max_queue: int = 128
    max_total_tokens: int | None = None
    """Prompt and answer together; None: the model's context."""
    request_timeout_seconds: float = 120.0

    @property
    def proven(self) -> tuple[ServedAdapter, ...]:
        """What has a proof: every adapter, and the one that is merged into the base."""
        return (*self.adapters, self.merged) if self.merged else self.adapters
