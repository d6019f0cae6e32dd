"""The server of a ModelDeployment's pods."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_contract.serving import EngineType
from finetune_operator.api.base import ApiModel, rule, rules


class Engine(ApiModel):
    """What serves."""

    type: EngineType = EngineType.TRANSFORMERS
    """VLLM: for GPUs. TGI (frozen upstream since 2025): for fleets that have it. Transformers: our own server on
    transformers and peft, for CPUs, tests and small GPUs."""
    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\s]+$")] | None = None
    """The engine's image; unset: the platform's."""
    args: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\n\x00]+$")]],
        Field(max_length=64),
    ] = []
    """Further arguments of vLLM or TGI, after the operator's own, such as `--gpu-memory-utilization=0.8`."""
    max_batch_size: Annotated[int, Field(ge=1, le=256)] = 16
    """Requests that are answered together."""
    max_queue: Annotated[int, Field(ge=1, le=10_000)] = 128
    """Requests that may wait; more are refused with 429 (vLLM: 503)."""
    max_total_tokens: Annotated[int, Field(ge=2, le=10_000_000)] | None = None
    """Tokens of a prompt and its answer together; unset: what the model can take."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.args) || size(self.args) == 0 || (has(self.type) && self.type != 'Transformers')",
                "engine.args: the Transformers engine takes no arguments; use engine's fields, or another type",
            )
        )
    )
