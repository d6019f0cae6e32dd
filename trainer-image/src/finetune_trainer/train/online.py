"""Methods in which the model answers prompts while it is trained: GRPO, RLOO and Distillation.

Prompts are rendered and tokenised as everywhere else, and repeated for each epoch in an order of our own: TRL's sampler
leaves out what does not fill a batch, and forgets its order when a run is resumed.
"""

import logging
import math
import random
from collections.abc import Sequence
from typing import Any

from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import DistillationPlan, Method, OnlinePlan, RewardFunction
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.adapters import ExactAdapters
from finetune_trainer.train.callbacks import Reporting, TokenClock
from finetune_trainer.train.memory import out_of_memory
from finetune_trainer.train.model import load_model, load_tokenizer
from finetune_trainer.train.preference import config_like
from finetune_trainer.train.rewards import Judge, judges_of
from finetune_trainer.train.sequences import TrainingData
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)


def build_prompt_data(plan: TrainingPlan, bench: Workbench) -> TrainingData:
    """The prompts of all epochs, each epoch in another order, and the answers that a reward compares with.

    Raises:
        FineTuneError: InvalidPlan for lengths or batches that do not fit; DatasetInvalid without prompts or answers.
    """
    settings = _settings(plan)
    rows = bench.revision.rows("train")
    if not rows:
        raise FineTuneError(FailureReason.DATASET_INVALID, "the dataset's train split has no rows")
    found = []
    for row in rows:
        example = bench.renderer.example(row)
        found.append({"prompt": example.prompt, "ids": bench.renderer.prompt_ids(example), "answer": example.answer})
    _refuse_missing_answers(plan, found)
    longest = max(len(row["ids"]) for row in found)
    room = min(plan.hyperparameters.max_length or bench.context, bench.context)
    if longest + settings.max_completion_length > room:
        raise FineTuneError(
            FailureReason.DATA_TRUNCATED,
            f"the longest prompt has {longest} tokens, and maxCompletionLength is {settings.max_completion_length}: "
            f"together more than the {room} that the model may read (its context, or hyperparameters.maxLength)",
        )
    order = _order(plan, len(found))
    log.info("%d prompts, the longest has %d tokens; %d answers to a prompt", len(found), longest, _answers(plan))
    from datasets import Dataset

    return TrainingData(
        dataset=Dataset.from_list([{"prompt": found[at]["prompt"], "row": at, **found[at]} for at in order]),
        sequence_length=longest + settings.max_completion_length,
        tokens=sum(len(row["ids"]) for row in found),
        supervised_tokens=0,
        truncated_tokens=0,
        truncated_rows=0,
        dropped_rows=0,
        is_packed=False,
    )


def total_steps(plan: TrainingPlan, data: TrainingData) -> int:
    """Optimiser steps: the batches that the prompts of all epochs fill exactly."""
    return len(data.dataset) * _answers(plan) // plan.hyperparameters.global_batch_size


def _order(plan: TrainingPlan, rows: int) -> list[int]:
    """Row numbers for all epochs, filled up to whole batches."""
    settings = plan.hyperparameters
    answers = _answers(plan)
    if settings.global_batch_size % answers:
        raise FineTuneError(
            FailureReason.INVALID_PLAN,
            f"spec.hyperparameters.globalBatchSize: {settings.global_batch_size} answers cannot be divided into groups "
            f"of {answers} (generations); use a multiple",
        )
    per_step = settings.global_batch_size // answers
    wanted = math.ceil(settings.epochs * rows / per_step) * per_step
    order: list[int] = []
    for epoch in range(math.ceil(wanted / rows)):
        numbers = list(range(rows))
        random.Random(f"{settings.seed}:{epoch}").shuffle(numbers)
        order += numbers
    return order[:wanted]


def _refuse_missing_answers(plan: TrainingPlan, rows: list[dict[str, Any]]) -> None:
    rewards = plan.online.rewards if plan.online else ()
    missing = sum(not row["answer"].strip() for row in rows)
    if missing and any(each.function is RewardFunction.EXACT_MATCH for each in rewards):
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"{missing} of {len(rows)} rows have no answer that ExactMatch could compare with; "
            "give the prompts an `answer` column, or use another reward",
        )


def _settings(plan: TrainingPlan) -> OnlinePlan | DistillationPlan:
    found = plan.distillation if plan.method is Method.DISTILLATION else plan.online
    if found is None:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"method {plan.method} needs its settings")
    return found


def _answers(plan: TrainingPlan) -> int:
    return plan.online.generations if plan.online else 1


class Answering(ExactAdapters):
    """A trainer that gets prompts as texts, and knows their tokens."""

    def __init__(self, *args: Any, clock: TokenClock, prompt_ids: dict[str, list[int]], **kwargs: Any) -> None:  # noqa: ANN401
        """Take the trainer's arguments, who counts the tokens, and the tokens of each prompt."""
        self._clock = clock
        self._prompt_ids = prompt_ids
        super().__init__(*args, **kwargs)

    def create_model_card(self, *_: object, **__: object) -> None:
        """Write no README into checkpoints: they are sealed by their content."""

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self._prompt_ids[prompt]) for prompt in prompts], None, {}

    def _generate_and_score_completions(self, inputs: Any) -> Any:  # noqa: ANN401
        scored = super()._generate_and_score_completions(inputs)  # type: ignore[misc] # the trainer's
        self._clock.add(sum(int(scored[name].sum()) for name in ("prompt_mask", "completion_mask") if name in scored))
        return scored


class AnsweringGRPO(Answering, GRPOTrainer):  # type: ignore[misc] # trl has no types
    """GRPO."""


class AnsweringRLOO(Answering, RLOOTrainer):  # type: ignore[misc]
    """RLOO."""


class AnsweringDistillation(Answering, DistillationTrainer):  # type: ignore[misc]
    """On-policy distillation."""


def make_trainer(plan: TrainingPlan, bench: Workbench, *, args: Any, model: Any, **rest: Any) -> Any:  # noqa: ANN401
    """The trainer of a method in which the model answers; arguments as `preference.make_trainer`."""
    settings = _settings(plan)
    # Answers end where a server ends them: also at the template's end of turn.
    model.generation_config.eos_token_id = bench.renderer.stop_ids()
    prompts = rest["train_dataset"]
    rest["prompt_ids"] = dict(zip(prompts["prompt"], prompts["ids"], strict=True))
    for callback in rest["callbacks"]:
        if isinstance(callback, Reporting):
            # The dataset is all epochs in a row.
            callback.passes = plan.hyperparameters.epochs
    common = {
        "max_completion_length": settings.max_completion_length,
        "temperature": settings.temperature,
        "shuffle_dataset": False,
        "remove_unused_columns": False,
    }
    if isinstance(settings, DistillationPlan):
        config = config_like(args, DistillationConfig, **common, beta=settings.beta)
        return AnsweringDistillation(args=config, model=model, teacher_model=_teacher(settings, bench, model), **rest)
    kind, trainer = (
        (GRPOConfig, AnsweringGRPO) if plan.method is Method.GRPO else (RLOOConfig, AnsweringRLOO)
    )  # fmt: skip
    config = config_like(
        args,
        kind,
        **common,
        num_generations=settings.generations,
        beta=settings.beta,
        reward_weights=[reward.weight for reward in settings.rewards],
    )
    judges = judges_of(settings.rewards, bench.store, bench.tokenizer, bench.device)
    functions = [as_function(at, judge) for at, judge in enumerate(judges)]
    return trainer(args=config, model=model, reward_funcs=functions, **rest)


def as_function(at: int, judge: Judge) -> Any:  # noqa: ANN401
    """A judge as TRL calls it."""

    def judged(
        *,
        completions: list[str],
        completion_ids: list[list[int]],
        ids: list[list[int]],
        answer: Sequence[str],
        **_: object,
    ) -> list[float]:
        try:
            return judge(completions, ids, completion_ids, answer)
        except Exception as error:
            # Too little memory has a name of its own.
            if isinstance(error, FineTuneError) or out_of_memory(error):
                raise
            raise FineTuneError(
                FailureReason.REWARD_FAILED,
                f"rewards[{at}]: raised {type(error).__name__}: {str(error)[:300]}; the first of {len(completions)} "
                f"answers was {completions[0]!r:.200}",
            ) from error

    judged.__name__ = f"reward-{at}"
    return judged


def _teacher(settings: DistillationPlan, bench: Workbench, student: Any) -> Any:  # noqa: ANN401
    directory = bench.store.verify(settings.teacher)
    teacher = load_model(directory, bench.device.dtype(trained=False), bench.device)
    sizes = {model.config.get_text_config().vocab_size for model in (teacher, student)}
    if len(sizes) > 1 or load_tokenizer(directory).get_vocab() != bench.tokenizer.get_vocab():
        raise FineTuneError(
            FailureReason.TOKENIZER_MISMATCH,
            "spec.distillation.teacher: has another vocabulary than the model that is trained; "
            "choose one of the same family",
        )
    if settings.teacher_adapter is not None:
        from peft import PeftModel

        adapter = bench.store.verify(settings.teacher_adapter)
        teacher = PeftModel.from_pretrained(teacher, str(adapter)).merge_and_unload()
    return teacher.eval().requires_grad_(requires_grad=False)
