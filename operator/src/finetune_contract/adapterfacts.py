"""What engines must know of an adapter before they load it; read from its files, once, by who made it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.base import Document, Label


class AdapterFeature(StrEnum):
    """What makes an adapter more than low-rank matrices in every layer; not every engine can serve it."""

    DORA = "DoRA"
    """A trained magnitude per output."""
    BIAS = "Bias"
    """Trained biases."""
    WHOLE_MODULES = "WholeModules"
    """Modules that were trained whole: `modules_to_save`, new tokens, embeddings with their own weights."""
    EMBEDDINGS = "Embeddings"
    """Low-rank matrices of embeddings."""
    PATTERNS = "Patterns"
    """Ranks or alphas that differ between modules."""
    SOME_LAYERS = "SomeLayers"
    """Layers without one of the adapted modules."""
    CHANGED_BASE = "ChangedBase"
    """An initialisation that changed the base's weights (PiSSA, OLoRA, CorDA, LoftQ) and was not converted."""


class AdapterFacts(Document):
    """An adapter, as an engine sees it before loading it."""

    rank: Annotated[int, Field(ge=1, le=65_536)]
    """The largest of all modules."""
    targets: Annotated[tuple[Label, ...], Field(max_length=64)]
    """Last names of the adapted modules, such as `q_proj`, sorted."""
    family: Label | None = None
    """`model_type` of the base's configuration, such as `llama`."""
    quantization: Label | None = None
    """`quant_method` of the base's configuration; None where its weights are plain."""
    features: Annotated[tuple[AdapterFeature, ...], Field(max_length=16)] = ()
