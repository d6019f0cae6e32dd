"""What stage and resolve pods are asked for: a base model in the store, and what became of a run."""

from typing import Any, Literal, Self

from pydantic import model_validator

from finetune_contract.base import Document, Sha256, StoredReference
from finetune_contract.storage import StorePlan


class HubModel(Document):
    """A model of the Hugging Face Hub."""

    repo: str
    revision: str = "main"


class S3Model(Document):
    """A model under an S3 prefix; credentials come as AWS_* environment variables."""

    uri: str
    endpoint: str | None = None
    region: str | None = None


class BaseSource(Document):
    """Where a base model comes from: exactly one is set."""

    hub: HubModel | None = None
    s3: S3Model | None = None
    volume: str | None = None
    """A directory under the source mount, relative (`.` for the mount itself)."""
    stored: StoredReference | None = None
    """A directory that is in the store already: another job's artifact."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.hub, self.s3, self.volume, self.stored)) != 1:
            raise ValueError("exactly one of hub, s3, volume, stored must be set")
        return self


class RunIngredients(Document):
    """What makes a run key beside the base's digest."""

    train_fields: dict[str, Any]
    dataset: Sha256
    inputs: dict[str, StoredReference] = {}
    """What else decides the weights, by its part in the run (`adapter`, `reward-0`, `teacher`): stored artifacts."""


class StagePlan(StorePlan):
    """Bring a base model into the store once; say which run this is and whether it has succeeded before."""

    version: Literal[1] = 1
    name: str
    namespace: str
    source: BaseSource
    run: RunIngredients | None = None
    """None for a ModelDeployment, which has no run."""
    adapters: tuple[StoredReference, ...] = ()
    """Adapters that a ModelDeployment names by address: nobody has said yet what engines must know of them."""


class ResolvePlan(StorePlan):
    """Look up in the store what became of a run whose attempt nobody saw end."""

    version: Literal[1] = 1
    name: str
    namespace: str
    run_key: str
