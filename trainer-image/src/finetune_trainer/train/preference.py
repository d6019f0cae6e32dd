"""TRL's trainers of preferences, on rows that are tokenised already: DPO, ORPO, SimPO, KTO and Reward.

Left alone, they cut rows at 1,024 tokens, drop those whose prompt is longer, and say neither.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
from finetune_trainer.train.group import gathered_by_all
from finetune_trainer.train.model import load_model
from finetune_trainer.train.ordered import OrderedTrainer
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)

_TOKENS = "num_tokens"
"""TRL's figure of the tokens that were trained on so far."""


class Prepared(OrderedTrainer):
    """A trainer whose data needs nothing more.

    A step's loss is the mean over its rows, however they are cut into forward passes and dealt to ranks; TRL's is the
    mean of the passes' means, in which a row of a small last pass counts for more.
    """

    loss_is_scaled_for_ga = True
    _metrics: dict[str, dict[str, list[float]]]
    _stored_metrics: dict[str, dict[str, list[float]]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        """Take the arguments of `OrderedTrainer`."""
        super().__init__(*args, **kwargs)
        self._shares: Iterator[float] = iter(())

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:  # noqa: ANN401
        return dataset

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """The passes of the next step, and what each of them counts for."""
        self._shares = iter(self._order.shares(self.state.global_step))
        return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc] # the trainer's

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """This pass's part of the step's loss; ranks' gradients are averaged."""
        share, kept = next(self._shares), _copy(self._figures())
        # Passes of different ranks may have different numbers of rows, and TRL gathers figures row by row.
        with _alone(self.accelerator):
            loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if not share:
            figures = self._figures()
            figures.clear()
            figures.update(kept)
        return loss * (share * self._ranks.count)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Log the figures of all ranks' passes."""
        if self._ranks.are_several:
            found = gathered_by_all(_copy(self._figures()))
            figures = self._figures()
            figures.clear()
            for each in found:
                for name, values in each.items():
                    figures[name] += values
            if _TOKENS in figures:  # a total, that each rank knows of its own passes
                figures[_TOKENS] = [sum(figures[_TOKENS])]
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _figures(self) -> dict[str, list[float]]:
        """What TRL averages at the next log entry: figure -> its values."""
        # TRL's experimental trainers have a name of their own for them.
        figures = self._stored_metrics if hasattr(self, "_stored_metrics") else self._metrics
        return figures["train"]


def _copy(figures: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: list(values) for name, values in figures.items()}


@contextmanager
def _alone(accelerator: Any) -> Iterator[None]:  # noqa: ANN401 - accelerate has no types
    """Within, what is gathered is what this rank has."""
    names = ("gather", "gather_for_metrics")
    vars(accelerator).update(dict.fromkeys(names, lambda value, *_args, **_kwargs: value))
    try:
        yield
    finally:
        for name in names:
            delattr(accelerator, name)


class PreparedDPO(Prepared, DPOTrainer):  # type: ignore[misc] # trl has no types
    """DPO; the reference is a frozen copy of the adapter, or of the model where there is none."""


class PreparedReward(Prepared, RewardTrainer):  # type: ignore[misc]
    """Reward modelling (Bradley-Terry)."""


class PreparedKTO(Prepared, KTOTrainer):  # type: ignore[misc]
    """KTO; each answer is compared with another one's of its forward pass, under the wrong prompt.

    The estimate that this gives is of one pass, not of all ranks': so a step is the same for any number of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        """Take the arguments of `OrderedTrainer`."""
        super().__init__(*args, **kwargs)
        collate = self.data_collator
        self.data_collator = lambda rows: collate(_mismatched(rows))

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:  # noqa: ANN401
        # For a pass of a single row. What comes last for several ranks is the first row again: nothing changes by it.
        answers = dataset["completion_ids"]
        return dataset.add_column("KL_completion_ids", [*answers[1:], answers[0]])


def _mismatched(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one pass, each with its neighbour's answer to compare with."""
    if len(rows) == 1:
        return rows
    others = [rows[-1], *rows[:-1]]
    return [{**row, "KL_completion_ids": other["completion_ids"]} for row, other in zip(rows, others, strict=True)]


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
        rest: Of the trainer: clock, order, ranks, train_dataset, processing_class, callbacks.

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
            config = config_like(args, KTOConfig, max_length=None, beta=kto.beta, **own)
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
