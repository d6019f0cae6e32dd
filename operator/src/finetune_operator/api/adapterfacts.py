"""What status says of an adapter, for engines to judge."""

from typing import Annotated

from pydantic import Field

from finetune_contract.adapterfacts import AdapterFacts, AdapterFeature
from finetune_operator.api.base import ApiModel, Word


class AdapterFactsStatus(ApiModel):
    """What engines must know of an adapter before they load it."""

    rank: Annotated[int, Field(ge=1, le=65_536)]
    """The largest rank of its modules."""
    targets: Annotated[list[Word], Field(max_length=64)]
    """The modules that it adapts."""
    family: Word | None = None
    """The kind of its base model, such as `llama`."""
    quantization: Word | None = None
    """How its base model's files are quantised; unset: they are not."""
    features: Annotated[list[AdapterFeature], Field(max_length=16)] = []
    """What makes it more than low-rank matrices in every layer; not every engine can serve it."""

    @classmethod
    def of(cls, facts: AdapterFacts) -> "AdapterFactsStatus":
        """As status keeps it."""
        return cls.model_validate(facts.model_dump())

    def facts(self) -> AdapterFacts:
        """As engines take it."""
        return AdapterFacts.model_validate(self.model_dump())
