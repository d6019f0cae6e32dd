"""The table of methods: how each one's model is loaded, its rows prepared and its trainer made.

SFT and CPT are not in it: `fit` packs their rows itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_contract.methods import Method
from finetune_contract.training import TrainingPlan
from finetune_trainer.train import online, preference, reward
from finetune_trainer.train.pairs import build_preference_data
from finetune_trainer.train.sequences import TrainingData
from finetune_trainer.train.workbench import Workbench


@dataclass(frozen=True)
class Family:
    """What is particular to some methods."""

    prepare: Callable[[TrainingPlan, Workbench], TrainingData]
    make_trainer: Callable[..., Any]
    """Takes plan, bench and a trainer's keyword arguments."""
    load: Callable[[TrainingPlan, Workbench], Any] | None = None
    """None: a language model."""
    total_steps: Callable[[TrainingPlan, TrainingData], int] | None = None
    """None: as many as the rows of all epochs fill."""
    is_ordered: bool = True
    """Whether it takes its rows in the order of `GlobalBatches`, which several ranks share."""


_PREFERENCE = Family(build_preference_data, preference.make_trainer)

_ONLINE = Family(online.build_prompt_data, online.make_trainer, total_steps=online.total_steps, is_ordered=False)

FAMILIES: dict[Method, Family] = {
    Method.DPO: _PREFERENCE,
    Method.ORPO: _PREFERENCE,
    Method.SIMPO: _PREFERENCE,
    Method.KTO: _PREFERENCE,
    Method.REWARD: Family(build_preference_data, preference.make_trainer, reward.load_trained),
    Method.GRPO: _ONLINE,
    Method.RLOO: _ONLINE,
    Method.DISTILLATION: _ONLINE,
}
