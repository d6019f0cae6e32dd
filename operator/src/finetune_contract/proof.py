"""What the prober says about the adapters of one serving pod: the answer of its `/status` and `/ready`."""

from enum import StrEnum

from finetune_contract.base import Document, Sha256


class ProofState(StrEnum):
    """How far one adapter of one pod is."""

    PENDING = "Pending"
    """Its files are not verified yet."""
    LOADING = "Loading"
    """Its files are right; the engine does not serve it yet."""
    SERVING = "Serving"
    """It answers its probe like the tuned model and unlike the base."""
    INERT = "Inert"
    """It answers like the base model."""
    INVALID = "Invalid"
    """Its files are not what was asked for, or it answers neither like the tuned model nor like the base."""


class AdapterProof(Document):
    """One adapter's proof."""

    name: str
    digest: Sha256
    state: ProofState
    message: str = ""
    """Why it is not Serving, with what to do."""
    seconds: float | None = None
    """How long the engine took for the proof."""


class ProofStatus(Document):
    """A pod's proof."""

    ready: bool
    """Whether traffic may come: the engine is healthy and every adapter is Serving."""
    message: str = ""
    """Why not."""
    adapters: tuple[AdapterProof, ...] = ()
