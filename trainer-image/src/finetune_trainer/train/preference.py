"""TRL's trainers of preferences, on rows that are tokenised already: DPO, ORPO, SimPO, KTO and Reward.

Left alone, they cut rows at 1,024 tokens, drop those whose prompt is longer, and say neither.
"""

import logging
import os
from dataclasses import fields
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import DpoPlan, KtoPlan, Method, OrpoPlan, SimpoPlan
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.adapters import ExactAdapters
from finetune_trainer.train.callbacks import TokenClock
from finetune_trainer.train.model import load_model
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)


class Prepared(ExactAdapters):
    """A trainer whose data needs nothing more."""

    def __init__(self, *args: Any, clock: TokenClock, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        """Take the trainer's arguments, and who counts the tokens."""
        self._clock = clock
        super().__init__(*args, **kwargs)

    def create_model_card(self, *_: object, **__: object) -> None:
        """Write no README into checkpoints: they are sealed by their content."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:  # noqa: ANN401
        return dataset

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Count the tokens, then do what TRL does."""
        masks = [value for name, value in inputs.items() if name.endswith("attention_mask")]
        self._clock.add(sum(int(mask.sum()) for mask in masks))
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc] # the trainer's


class PreparedDPO(Prepared, DPOTrainer):  # type: ignore[misc] # trl has no types
    """DPO; the reference is a frozen copy of the adapter, or of the model where there is none."""


class PreparedReward(Prepared, RewardTrainer):  # type: ignore[misc]
    """Reward modelling (Bradley-Terry)."""


class PreparedKTO(Prepared, KTOTrainer):  # type: ignore[misc]
    """KTO; each answer is compared with its neighbour's in the batch, under the wrong prompt."""

    def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:  # noqa: ANN401
        answers = dataset["completion_ids"]
        size = rest[1].per_device_train_batch_size
        batches = (answers[start : start + size] for start in range(0, len(answers), size))
        rotated = [answer for batch in batches for answer in (batch[-1], *batch[:-1])]
        return dataset.add_column("KL_completion_ids", rotated)


class _Rowwise(Prepared):
    """For TRL's experimental trainers, which tokenise row by row in a method of their own."""

    def tokenize_row(self, feature: dict[str, Any], model: object = None) -> dict[str, Any]:
        """Our tokens under their names."""
        del model
        prompt = feature["prompt_ids"]
        found = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"]
            ids = prompt + answer
            found |= {
                f"{side}_input_ids": ids,
                f"{side}_attention_mask": [1] * len(ids),
                f"{side}_labels": [-100] * len(prompt) + answer,
            }
        return found


class PreparedORPO(_Rowwise, ORPOTrainer):  # type: ignore[misc]
    """ORPO."""


class PreparedCPO(_Rowwise, CPOTrainer):  # type: ignore[misc]
    """CPO with SimPO's loss."""


def make_trainer(plan: TrainingPlan, bench: Workbench, *, args: Any, model: Any, **rest: Any) -> Any:  # noqa: ANN401
    """The trainer of a preference method.

    Args:
        plan: Its method and settings.
        bench: Where a reference model is loaded from.
        args: SFTConfig of the run, whose common fields are taken over.
        model: What is trained.
        rest: Of the trainer: clock, train_dataset, processing_class, callbacks.

    Raises:
        FineTuneError: InvalidPlan for settings that do not go together.
    """
    if plan.adapter is not None and plan.adapter.dropout:
        log.info("dropout is not used: with it, the model would differ from its reference by chance")
    match plan.method:
        case Method.DPO:
            dpo = plan.dpo or DpoPlan()
            own = {"beta": dpo.beta, "loss_type": [dpo.loss], "label_smoothing": dpo.label_smoothing}
            config = config_like(args, DPOConfig, max_length=None, **own)
            return PreparedDPO(args=config, model=model, ref_model=_reference(plan, bench), **rest)
        case Method.KTO:
            kto = plan.kto or KtoPlan()
            _refuse_single_rows(args)
            own = {"desirable_weight": kto.desirable_weight, "undesirable_weight": kto.undesirable_weight}
            sampling = {"train_sampling_strategy": "sequential"}
            config = config_like(args, KTOConfig, max_length=None, beta=kto.beta, **own, **sampling)
            return PreparedKTO(args=config, model=model, ref_model=_reference(plan, bench), **rest)
        case Method.REWARD:
            return PreparedReward(args=config_like(args, RewardConfig, max_length=None), model=model, **rest)
        case Method.ORPO:
            beta = (plan.orpo or OrpoPlan()).beta
            config = config_like(args, ORPOConfig, max_length=bench.context, beta=beta, remove_unused_columns=False)
            return PreparedORPO(args=config, model=model, **_with_texts(rest))
        case _:
            simpo = plan.simpo or SimpoPlan()
            own = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": simpo.beta, "simpo_gamma": simpo.gamma}
            config = config_like(args, CPOConfig, max_length=bench.context, remove_unused_columns=False, **own)
            return PreparedCPO(args=config, model=model, **_with_texts(rest))


_NOT_TAKEN_OVER = ("train_sampling_strategy", "remove_unused_columns")


def config_like(args: Any, kind: type, **own: Any) -> Any:  # noqa: ANN401
    """Another trainer's configuration with everything that all have in common."""
    common = {
        field.name: getattr(args, field.name)
        for field in fields(TrainingArguments)
        if field.init and field.name not in _NOT_TAKEN_OVER
    }
    return kind(**{**common, **own})


def _reference(plan: TrainingPlan, bench: Workbench) -> Any:  # noqa: ANN401
    """What a fully trained model is compared with; with an adapter, TRL keeps a copy of its first weights."""
    if plan.adapter is not None:
        return None
    return load_model(bench.base, bench.device.dtype(trained=False), bench.device).eval()


def _with_texts(rest: dict[str, Any]) -> dict[str, Any]:
    """TRL's experimental trainers look at texts before they tokenise; ours are tokenised already."""
    dataset = rest["train_dataset"]
    for column in ("prompt", "chosen", "rejected"):
        dataset = dataset.add_column(column, [""] * len(dataset))
    return {**rest, "train_dataset": dataset}


def _refuse_single_rows(args: Any) -> None:  # noqa: ANN401
    if args.per_device_train_batch_size < 2:
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            "spec.hyperparameters: KTO compares the rows of a forward pass with each other: raise globalBatchSize, and "
            "microBatchSize where it is set, so that at least 2 rows are in one",
        )
