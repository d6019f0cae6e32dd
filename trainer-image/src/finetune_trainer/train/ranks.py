"""Who this process is among those that train together, in torchrun's own variables. Knows nothing of torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import not_divided, one_process_only
from finetune_contract.training import ShardingStrategy, TrainingPlan


@dataclass(frozen=True)
class Ranks:
    """One rank; by default the only one."""

    rank: int = 0
    """0 writes checkpoints, evaluates and publishes; the others only train."""
    count: int = 1
    local: int = 0
    """Within its pod: which GPU is its own."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """RANK, WORLD_SIZE and LOCAL_RANK, as torchrun and `launch` set them; without them, alone."""
        return cls(
            rank=int(environment.get("RANK", "0")),
            count=int(environment.get("WORLD_SIZE", "1")),
            local=int(environment.get("LOCAL_RANK", "0")),
        )

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.count > 1


ALONE = Ranks()


def refuse_impossible_group(plan: TrainingPlan) -> None:
    """Refuse ranks that would have nothing to do, or cannot do what the method needs.

    The operator does the same before there is a pod.

    Raises:
        FineTuneError: InvalidPlan.
    """
    batch, ranks = plan.hyperparameters.global_batch_size, plan.parallelism.ranks
    message = None
    if batch < ranks:
        message = (
            f"spec.hyperparameters.globalBatchSize: {batch} sequences cannot be divided among {ranks} ranks; "
            f"use at least {ranks}, or fewer spec.parallelism.nodes or GPUs"
        )
    elif ranks > 1:
        message = one_process_only(plan.method)
        if message is None and plan.parallelism.strategy is ShardingStrategy.FSDP:
            message = not_divided(plan.method)
    if message is not None:
        raise FineTuneError(FailureReason.INVALID_PLAN, message)
