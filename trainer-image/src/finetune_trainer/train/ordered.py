"""What every trainer of several ranks has in common: its sequences, sums of gradients, random state, checkpoints."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import set_seed
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from finetune_trainer.train.adapters import ExactAdapters
from finetune_trainer.train.callbacks import TokenClock
from finetune_trainer.train.exact import ExactSums, sum_over_ranks
from finetune_trainer.train.group import gathered
from finetune_trainer.train.order import GlobalBatches
from finetune_trainer.train.ranks import Ranks
from finetune_trainer.train.sharded import load_optimizer, load_weights, save_optimizer

_SEED_STRIDE = 1009
"""Between the seeds of two steps: more than there are ranks."""


class OrderedTrainer(ExactAdapters):
    """Stands before one of TRL's trainers; the same steps for any number of ranks, and resumed bit by bit."""

    accelerator: Any
    data_collator: Any
    lr_scheduler: Any
    optimizer: Any
    state: Any
    train_dataset: Any
    _remove_unused_columns: Any

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - passed on
        clock: TokenClock,
        order: GlobalBatches,
        ranks: Ranks,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Take the trainer's arguments, who counts the tokens, and which sequences are this rank's."""
        self._clock = clock
        self._order = order
        self._ranks = ranks
        super().__init__(*args, **kwargs)
        self._sums = ExactSums() if self.args.use_cpu and not self.is_fsdp_enabled else None
        self._is_hooked = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Our own order: accelerate's would fill up uneven steps with sequences that were seen already."""
        dataset = self._remove_unused_columns(self.train_dataset, description="training")
        return DataLoader(
            dataset,
            batch_sampler=self._order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
            # Its own, so that asking for data takes nothing from the random numbers that dropout uses.
            generator=torch.Generator(),
        )

    def create_model_card(self, *_: object, **__: object) -> None:
        """Write no README into checkpoints: they are sealed by their content."""

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Count the tokens, then do what TRL does, and sum the gradients of several passes."""
        if self._sums is not None and isinstance(model, DistributedDataParallel) and not self._is_hooked:
            model.register_comm_hook(self._sums, sum_over_ranks)
            self._is_hooked = True
        self._clock.add(tokens_in(inputs))
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc] # the trainer's
        if self._sums is not None and not self.accelerator.sync_gradients:
            self._sums.set_aside(self.model.parameters())
        elif self._sums is not None and not self._ranks.are_several:
            self._sums.put_back(self.model.parameters())
        return loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        """Weights of one rank's files, also into a divided model."""
        if self.is_fsdp_enabled:
            load_weights(model, Path(resume_from_checkpoint), reads=self._ranks.is_first)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As one rank does, also of a divided model."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        path, writes = Path(output_dir), self._ranks.is_first
        save_optimizer(self.model, self.optimizer.optimizer, path / OPTIMIZER_NAME, writes=writes)
        if writes:
            torch.save(self.lr_scheduler.state_dict(), path / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As one rank does, also into a divided model."""
        if not self.is_fsdp_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        path = Path(checkpoint)
        load_optimizer(self.model, self.optimizer.optimizer, path / OPTIMIZER_NAME, reads=self._ranks.is_first)
        self.lr_scheduler.load_state_dict(torch.load(path / SCHEDULER_NAME, weights_only=True))

    def _save_rng_state(self, output_dir: str) -> None:
        """Let rank 0 write the random state of all: a file that another node writes may not be seen when it seals."""
        if not self._ranks.are_several:
            super()._save_rng_state(output_dir)  # type: ignore[misc]
            return
        with TemporaryDirectory() as scratch:
            super()._save_rng_state(scratch)  # type: ignore[misc]
            (path,) = Path(scratch).iterdir()
            states = gathered(self._ranks, path.read_bytes())
        for rank, state in enumerate(states):
            (Path(output_dir) / f"rng_state_{rank}.pth").write_bytes(state)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with the saved random numbers; with another number of ranks, with new ones, never with used ones."""
        super()._load_rng_state(checkpoint)  # type: ignore[misc]
        name = f"rng_state_{self._ranks.rank}.pth" if self._ranks.are_several else "rng_state.pth"
        if checkpoint is not None and not (Path(checkpoint) / name).is_file():
            set_seed(self.args.seed + self.state.global_step * _SEED_STRIDE + self._ranks.rank)


def tokens_in(inputs: dict[str, Any]) -> int:
    """Tokens of one forward pass, padding not counted."""
    masks = [value for name, value in inputs.items() if name.endswith("attention_mask") and value is not None]
    return sum(int(mask.sum()) for mask in masks) if masks else int(inputs["input_ids"].numel())
