"""TRL's SFTTrainer with our data, our loss on CPU, and none of its defaults that lose data or hide errors."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import Hyperparameters
from finetune_trainer.train.batching import BatchPlan
from finetune_trainer.train.model import Device
from finetune_trainer.train.ordered import OrderedTrainer
from finetune_trainer.train.sequences import IGNORED

_MOST_LOGGED_STEPS = 1000
"""Log entries per run: they are part of every checkpoint."""

_MOST_LOGITS = 64 * 1024 * 1024
"""Elements of logits (256 MiB) that are computed in one piece on CPU; beyond, TRL's chunks are used."""


class PackedTrainer(OrderedTrainer, SFTTrainer):  # type: ignore[misc] # trl has no types
    """Trains on sequences that are tokenised, labelled and packed already."""

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
