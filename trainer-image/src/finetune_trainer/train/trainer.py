"""TRL's SFTTrainer with our data, our loss on CPU, and none of its defaults that lose data or hide errors."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import set_seed
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from trl import SFTConfig, SFTTrainer

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import Hyperparameters
from finetune_trainer.train.adapters import ExactAdapters
from finetune_trainer.train.batching import BatchPlan
from finetune_trainer.train.callbacks import TokenClock
from finetune_trainer.train.exact import ExactSums, sum_over_ranks
from finetune_trainer.train.group import gathered
from finetune_trainer.train.model import Device
from finetune_trainer.train.order import GlobalBatches
from finetune_trainer.train.ranks import Ranks
from finetune_trainer.train.sequences import IGNORED
from finetune_trainer.train.sharded import load_optimizer, load_weights, save_optimizer

_MOST_LOGGED_STEPS = 1000
"""Log entries per run: they are part of every checkpoint."""

_MOST_LOGITS = 64 * 1024 * 1024
"""Elements of logits (256 MiB) that are computed in one piece on CPU; beyond, TRL's chunks are used."""

_SEED_STRIDE = 1009
"""Between the seeds of two steps: more than there are ranks."""


class PackedTrainer(ExactAdapters, SFTTrainer):  # type: ignore[misc] # trl has no types
    """Trains on sequences that are tokenised, labelled and packed already."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - passed on
        clock: TokenClock,
        order: GlobalBatches,
        ranks: Ranks,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Take SFTTrainer's arguments, who counts the tokens, and which sequences are this rank's."""
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
        mask = inputs.get("attention_mask")
        self._clock.add(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
        loss = super().training_step(model, inputs, *args, **kwargs)
        if self._sums is not None and not self.accelerator.sync_gradients:
            self._sums.set_aside(self.model.parameters())
        elif self._sums is not None and not self._ranks.are_several:
            self._sums.put_back(self.model.parameters())
        return loss

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:  # noqa: ANN401
        """Mean loss over the supervised tokens of the whole step.

        TRL's fused head projects every position on CPU, and computes entropy and accuracy that nobody asked for. Here
        only the positions that predict a supervised token reach the vocabulary.
        """
        labels = inputs["labels"]
        predicting = (labels[0, 1:] != IGNORED).nonzero().flatten()
        vocabulary = self.model.config.get_text_config().vocab_size  # `model` may be wrapped
        is_small = predicting.numel() * vocabulary <= _MOST_LOGITS
        if labels.is_cuda or "position_ids" not in inputs or return_outputs or not is_small:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        others = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**others, use_cache=False, logits_to_keep=predicting).logits[0]
        loss = cross_entropy(logits.float(), labels[0, 1:][predicting], reduction="sum")
        if num_items_in_batch is None:
            return loss / max(predicting.numel(), 1)
        # Ranks' gradients are averaged, and the count is that of all of them.
        return loss / max(int(num_items_in_batch), 1) * self._ranks.count

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        """Weights of one rank's files, also into a divided model."""
        if self.is_fsdp_enabled:
            load_weights(model, Path(resume_from_checkpoint), reads=self._ranks.is_first)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As one rank does, also of a divided model."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        path, writes = Path(output_dir), self._ranks.is_first
        save_optimizer(self.model, self.optimizer.optimizer, path / OPTIMIZER_NAME, writes=writes)
        if writes:
            torch.save(self.lr_scheduler.state_dict(), path / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As one rank does, also into a divided model."""
        if not self.is_fsdp_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        path = Path(checkpoint)
        load_optimizer(self.model, self.optimizer.optimizer, path / OPTIMIZER_NAME, reads=self._ranks.is_first)
        self.lr_scheduler.load_state_dict(torch.load(path / SCHEDULER_NAME, weights_only=True))

    def _save_rng_state(self, output_dir: str) -> None:
        """Let rank 0 write the random state of all: a file that another node writes may not be seen when it seals."""
        if not self._ranks.are_several:
            super()._save_rng_state(output_dir)
            return
        with TemporaryDirectory() as scratch:
            super()._save_rng_state(scratch)
            (path,) = Path(scratch).iterdir()
            states = gathered(self._ranks, path.read_bytes())
        for rank, state in enumerate(states):
            (Path(output_dir) / f"rng_state_{rank}.pth").write_bytes(state)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with the saved random numbers; with another number of ranks, with new ones, never with used ones."""
        super()._load_rng_state(checkpoint)
        name = f"rng_state_{self._ranks.rank}.pth" if self._ranks.are_several else "rng_state.pth"
        if checkpoint is not None and not (Path(checkpoint) / name).is_file():
            set_seed(self.args.seed + self.state.global_step * _SEED_STRIDE + self._ranks.rank)


def build_config(
    settings: Hyperparameters,
    *,
    output_dir: str,
    total_steps: int,
    batches: BatchPlan,
    device: Device,
    packed_attention: bool,
    recomputes: bool,
    sharded: bool = False,
) -> Any:  # noqa: ANN401
    """SFTConfig for one run; every default of TRL that docs/developing/library-traps.md names is set.

    Raises:
        FineTuneError: InvalidPlan for a setting that transformers does not know.
    """
    try:
        return SFTConfig(
            output_dir=output_dir,
            max_steps=total_steps,
            per_device_train_batch_size=batches.micro,
            gradient_accumulation_steps=batches.accumulation,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.scheduler,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            data_seed=settings.seed,
            # The data is prepared: nothing is left to truncate, drop or pack.
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            packing=False,
            padding_free=packed_attention,
            # Precision and memory.
            use_cpu=not device.is_cuda,
            bf16=device.is_cuda,
            activation_checkpointing=recomputes,
            fsdp=sharded,
            dataloader_pin_memory=device.is_cuda,
            # Every weight has a gradient in every pass, also in a blank one; buffers are constants.
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,
            # Our callbacks save and report; a loss that is not finite must be seen.
            save_strategy="no",
            logging_steps=max(1, total_steps // _MOST_LOGGED_STEPS),
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
        )
    except ValueError as error:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"spec.hyperparameters: {error}") from error
