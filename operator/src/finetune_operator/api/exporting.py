"""What of a FineTuneJob's artifact is made in other forms, and what became of that."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.exporting import ExportSettings, ExportType, HubContent, HubTarget, Quantization
from finetune_operator.api.base import (
    ApiModel,
    Digest,
    JobFailure,
    SecretKeyReference,
    Uri,
    Word,
    rule,
    rules,
)

EXPORTED = "Exported"
"""The condition that sums the exports up."""

MOST_EXPORTS = 8


class HubExport(ApiModel):
    """A branch of a model repository on the Hugging Face Hub, or on a mirror (HF_ENDPOINT in podTemplate.env)."""

    repo: Annotated[
        str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    ]
    """The repository with its owner, such as `my-org/support-triage`; made if there is none."""
    revision: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "main"
    """The branch; made from main if there is none."""
    private: bool = True
    """Whether a repository that is made is private; one that is there stays as it is."""
    content: HubContent = HubContent.ARTIFACT
    """Artifact pushes what the job made, MergedModel the whole model."""
    token_secret_ref: SecretKeyReference
    """The Secret key that holds a Hub token which may write to the repository."""


class Export(ApiModel):
    """One form that the artifact is made in, once for each artifact."""

    type: ExportType
    """MergedModel is a whole model in 16 bits, GGUF the same as one file for llama.cpp, GGUFAdapter the adapter alone
    for llama.cpp, Hub a push to the Hugging Face Hub."""
    quantization: Quantization | None = None
    """How a GGUF file holds the weights; unset: F16. Q8_0 is half of that, with next to no loss."""
    hub: HubExport | None = None
    """Where type Hub pushes to."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.hub) == (self.type == 'Hub')",
                "hub belongs to type Hub, and to no other: set it, or remove it",
            ),
            rule(
                "!has(self.quantization) || self.type in ['GGUF', 'GGUFAdapter']",
                "quantization belongs to types GGUF and GGUFAdapter: remove it",
            ),
        )
    )

    def settings(self) -> ExportSettings:
        """As the pod gets it: without the Secret's name, which changes nothing of what is made."""
        hub = self.hub
        is_gguf = self.type in (ExportType.GGUF, ExportType.GGUF_ADAPTER)
        return ExportSettings(
            type=self.type,
            quantization=(self.quantization or Quantization.F16) if is_gguf else None,
            hub=HubTarget(repo=hub.repo, revision=hub.revision, private=hub.private, content=hub.content)
            if hub
            else None,
        )

    @property
    def label(self) -> str:
        """What people call it, such as `GGUF Q8_0`."""
        settings = self.settings()
        detail = settings.quantization or (f"{settings.hub.repo}@{settings.hub.revision}" if settings.hub else None)
        return f"{self.type.value} {detail}" if detail else self.type.value


Exports = Annotated[list[Export], Field(max_length=MOST_EXPORTS)]


class ExportStatus(ApiModel):
    """What became of one export."""

    name: Annotated[str, StringConstraints(max_length=512)]
    """Its type, with quantisation or repository."""
    key: Word
    """Names artifact and settings: what was made for them is not made again."""
    artifact: Digest
    """What it is made of."""
    state: Literal["Waiting", "Exporting", "Done", "Failed"] = "Waiting"
    """Done and Failed stay until artifact or spec change."""
    digest: Digest | None = None
    """Digest of what was made or pushed."""
    uri: Uri | None = None
    """Where it is: in the store, or on the Hub at its commit."""
    bytes: Annotated[int, Field(ge=0)] | None = None
    """Size of its files."""
    difference: float | None = None
    """Of a merged model: mean divergence from base and adapter on the probe prompts, in nats per token."""
    failure: JobFailure | None = None
    """Why the last try failed."""
    generation: Annotated[int, Field(ge=0)] | None = None
    """The spec's generation that a failed one was given up for; an edit tries again."""
