"""Checkpoints of a model that is divided among the ranks (FSDP2), in the very files that one rank writes.

accelerate would write a second copy of the weights, and an optimizer state that only FSDP reads: then a group could not
go on with one rank. Here rank 0 gathers everything, numbered as torch's optimizers number it.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from finetune_contract.methods import not_divided
from finetune_contract.training import ShardingStrategy, TrainingPlan

_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)
_FROM_FIRST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
"""Not strict: tied weights are in a file once."""


def is_sharded(plan: TrainingPlan) -> bool:
    """Whether the ranks of this plan divide the model among them."""
    parallelism = plan.parallelism
    if parallelism.ranks == 1 or parallelism.strategy is ShardingStrategy.DDP or not_divided(plan.method):
        return False
    return parallelism.strategy is ShardingStrategy.FSDP or plan.adapter is None


def save_optimizer(model: Any, optimizer: torch.optim.Optimizer, path: Path, *, writes: bool) -> None:  # noqa: ANN401
    """Gather an optimizer's state; every rank calls this, one writes."""
    found: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=_GATHERED)
    if not writes:
        return
    state: dict[int, Any] = {}
    groups: list[dict[str, Any]] = []
    for group, names in zip(found["param_groups"], _names(model, optimizer), strict=True):
        first = len(state)
        state.update({first + at: found["state"][name] for at, name in enumerate(names)})
        groups.append({**group, "params": list(range(first, first + len(names)))})
    torch.save({"state": state, "param_groups": groups}, path)


def load_optimizer(model: Any, optimizer: torch.optim.Optimizer, path: Path, *, reads: bool) -> None:  # noqa: ANN401
    """Divide an optimizer's state among the ranks; every rank calls this, one reads."""
    found: dict[str, Any] = {}
    if reads:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        groups = list(zip(saved["param_groups"], _names(model, optimizer), strict=True))
        name_of = {number: name for group, names in groups for number, name in zip(group["params"], names, strict=True)}
        found = {
            "state": {name_of[number]: state for number, state in saved["state"].items()},
            "param_groups": [{**group, "params": names} for group, names in groups],
        }
    set_optimizer_state_dict(model, optimizer, found, options=_FROM_FIRST)


def load_weights(model: Any, directory: Path, *, reads: bool) -> None:  # noqa: ANN401 - transformers has no types
    """Divide a checkpoint's weights among the ranks; every rank calls this, one reads."""
    weights: dict[str, Any] = {}
    if reads:
        for path in sorted(directory.glob("*.safetensors")):
            weights.update(load_file(path))
    set_model_state_dict(model, weights, options=_FROM_FIRST)


def _names(model: Any, optimizer: torch.optim.Optimizer) -> list[list[str]]:  # noqa: ANN401
    """The names of an optimizer's parameters, group by group."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[name_of[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
