"""One system at a time: a model by its losses and answers, an endpoint by its answers, all on the same terms."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import Baseline, EndpointPlan, Metric
from finetune_contract.training import TrainingPlan
from finetune_trainer.data.instructions import Stripped
from finetune_trainer.evaluate.answered import OF_ANSWERS, measure_answers
from finetune_trainer.evaluate.baselines import Memory
from finetune_trainer.evaluate.endpoints import answers_of, conversation, endpoint_of
from finetune_trainer.evaluate.generate import Loss
from finetune_trainer.evaluate.heldout import HeldOut
from finetune_trainer.evaluate.losses import losses_of, pieces_of_examples, preferred, summed, with_worse_answers
from finetune_trainer.evaluate.measures import Mean, Measure
from finetune_trainer.evaluate.record import EndpointUse
from finetune_trainer.evaluate.rewarded import mean_rewards
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.train.render import Example
from finetune_trainer.train.workbench import Workbench

_OF_LOSS = (Metric.EVAL_LOSS, Metric.PERPLEXITY)


@dataclass(frozen=True)
class Terms:
    """What is the same for every system."""

    plan: TrainingPlan
    bench: Workbench
    rows: HeldOut
    metrics: tuple[Metric, ...]
    instruction: Stripped | None
    """What was cut off all rows."""
    labels: tuple[str, ...]
    """Of the training rows; only of Classification rows."""

    @property
    def is_classification(self) -> bool:
        """Whether the rows have labels."""
        return self.bench.revision.row_format is RowFormat.CLASSIFICATION

    @property
    def references(self) -> list[str]:
        """The rows' own answers."""
        return [each.answer for each in self.rows.examples]


@dataclass
class Found:
    """What one system did."""

    measures: dict[Metric, Measure] = field(default_factory=dict)
    losses: list[Loss] | None = None
    answers: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    use: EndpointUse | None = None
    """Of an endpoint that was asked; None where its answers were known."""


def measure_model(terms: Terms, subject: Subject, bench: Workbench, found: Found) -> None:
    """Everything that a model's losses and answers say.

    Args:
        terms: The same for all systems.
        subject: The system.
        bench: The inputs as this system reads them: another job's artifact may have another tokenizer.
        found: Takes it.
    """
    metrics, most = terms.metrics, terms.rows.max_new_tokens
    examples = _examples(terms, subject.system, bench)
    prompts = [bench.renderer.prompt_ids(example) for example in examples]
    if (long := _too_long(terms, bench, prompts)) > 0:
        what = f"{long} of {len(prompts)} prompts do not fit its context of {bench.context} tokens"
        found.notes.append(f"{subject.system} is left out: {what}")
        return
    wants_losses = any(each in (*_OF_LOSS, Metric.PREFERENCE_ACCURACY) for each in metrics)
    if wants_losses and bench.renderer is not terms.bench.renderer:
        wants_losses = False
        found.notes.append(f"the losses of {subject.system} are left out: it reads with another tokenizer")
    wants_answers = any(each in OF_ANSWERS for each in metrics)
    pieces = pieces_of_examples(bench, examples) if wants_losses else []
    ids: list[list[int]] | None = None
    if wants_answers and pieces and all(len(each) == 1 for each in pieces):
        ids, losses = subject.answers_and_losses(prompts, most, [piece for (piece,) in pieces])
        found.losses = summed(pieces, losses)
    else:
        found.losses = losses_of(subject, pieces) if pieces else None
        ids = subject.answers(prompts, most) if wants_answers else None
    if found.losses is not None:
        totals, tokens = zip(*found.losses, strict=True)
        for metric in metrics:
            if metric in _OF_LOSS:
                found.measures[metric] = Mean.over(totals, tokens, exponential=metric is Metric.PERPLEXITY)
        if Metric.PREFERENCE_ACCURACY in metrics:
            worse = losses_of(subject, pieces_of_examples(bench, with_worse_answers(terms.rows, examples)))
            found.measures[Metric.PREFERENCE_ACCURACY] = Mean.over(preferred(found.losses, worse))
    if ids is not None:
        found.answers = _decoded(bench, ids)
        found.measures |= _of_answers(terms, found.answers)
    if Metric.MEAN_REWARD in metrics and terms.plan.online is not None:
        rewards = mean_rewards(terms.plan.online, bench, subject, prompts, terms.rows, ids)
        found.measures[Metric.MEAN_REWARD] = Mean.over(rewards)


def ask_endpoint(terms: Terms, system: str, plan: EndpointPlan, found: Found) -> None:
    """A baseline behind an endpoint, by its answers; those that are known are not asked for again.

    Raises:
        FineTuneError: EvaluationFailed; what was asked until then is found all the same.
    """
    others = [each.value for each in terms.metrics if each not in OF_ANSWERS]
    if others:
        found.notes.append(f"{', '.join(others)} of {system}: left out, an endpoint gives answers only")
    if len(others) == len(terms.metrics):
        return
    asked = [conversation(row, terms.instruction, plan.system_prompt) for row in terms.rows.rows]
    most = terms.rows.max_new_tokens

    def measure() -> list[str]:
        with endpoint_of(system, plan, most) as endpoint:
            try:
                return answers_of(system, plan, endpoint, asked)
            finally:
                found.use = endpoint.use(system)

    memory = Memory(terms.bench.store, f"{plan.url}#{plan.model}", "endpoint")
    found.answers, _ = memory.texts([*map(list, asked), most], measure)
    found.measures |= _of_answers(terms, found.answers)


def _examples(terms: Terms, system: str, bench: Workbench) -> list[Example]:
    rows, few = terms.rows, terms.plan.evaluation.few_shot_examples
    if system == Baseline.FEW_SHOT:
        return rows.with_shots(few)
    if system == Baseline.ORIGINAL_PROMPT and terms.instruction is not None:
        return rows.with_instruction(terms.instruction)
    if bench.renderer is not terms.bench.renderer:
        return [bench.renderer.example(row) for row in rows.rows]
    return rows.examples


def _too_long(terms: Terms, bench: Workbench, prompts: Sequence[Sequence[int]]) -> int:
    """How many prompts do not fit the system's context: they may be longer than the tuned model's."""
    if terms.bench.revision.row_format is RowFormat.TEXT:
        return 0
    return sum(len(prompt) + terms.rows.max_new_tokens > bench.context for prompt in prompts)


def _decoded(bench: Workbench, answers: list[list[int]]) -> list[str]:
    return [bench.tokenizer.decode(each, skip_special_tokens=True) for each in answers]


def _of_answers(terms: Terms, answers: Sequence[str]) -> dict[Metric, Measure]:
    wanted, references = terms.plan.evaluation, terms.references
    found = {
        metric: measure_answers(metric, wanted, answers, references, terms.labels)
        for metric in terms.metrics
        if metric in OF_ANSWERS
    }
    return {metric: measure for metric, measure in found.items() if measure is not None}
