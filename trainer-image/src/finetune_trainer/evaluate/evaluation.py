"""The evaluation stage: the tuned model beside its baselines, on rows that were never trained on."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from finetune_contract.base import Document
from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import TUNED, Baseline, Metric, Score
from finetune_contract.training import TrainingPlan
from finetune_trainer.evaluate.generate import Loss, greedy_answers, supervised_losses
from finetune_trainer.evaluate.heldout import HeldOut, held_out
from finetune_trainer.evaluate.rewarded import mean_rewards
from finetune_trainer.evaluate.scores import score
from finetune_trainer.evaluate.systems import Systems
from finetune_trainer.train.render import Example
from finetune_trainer.train.rows import with_answer
from finetune_trainer.train.sequences import pieces_of
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)


class EvaluatedRow(Document):
    """One held-out row, and what every system made of it."""

    prompt: str
    """As Tuned and ZeroShot read it; FewShot has solved rows before it."""
    reference: str
    answers: dict[str, str] = {}
    """By system; empty where ExactMatch was not asked for."""
    losses: dict[str, float] = {}
    """By system: mean loss per supervised token, in nats; empty where EvalLoss was not asked for."""


class Evaluation(Document):
    """`evaluation.json`: the scores and the rows they come from."""

    split: str
    scores: tuple[Score, ...] = ()
    rows: tuple[EvaluatedRow, ...] = ()

    def tuned_loss(self) -> float | None:
        """EvalLoss of the tuned model, if it was measured."""
        values = [each.value for each in self.scores if each.metric is Metric.EVAL_LOSS and each.system == TUNED]
        return values[0] if values else None


@dataclass(frozen=True)
class _Measured:
    """What one system did, per row; None for a metric that was not asked for."""

    losses: list[Loss] | None
    answers: list[str] | None
    preferred: list[float] | None = None
    """1 where the row's better answer is likelier than its worse one."""
    rewards: list[float] | None = None


def evaluate(plan: TrainingPlan, bench: Workbench, systems: Systems) -> Evaluation:
    """Measure every metric of the plan on every system; without held-out rows there are no scores."""
    wanted = plan.evaluation
    rows = held_out(plan, bench)
    if not wanted.metrics or not rows.examples:
        log.info("nothing is evaluated: no metric is asked for, or the dataset has no %s rows", wanted.split)
        return Evaluation(split=wanted.split)
    if Metric.EXACT_MATCH in wanted.metrics and bench.revision.row_format is RowFormat.TEXT:
        log.info("ExactMatch is left out: Text rows have no answer to match")
    if not _have_answers(bench, rows):
        log.info("EvalLoss and ExactMatch are left out: there are rows without an answer to compare with")
    if Metric.PREFERENCE_ACCURACY in wanted.metrics and not all("rejected" in row for row in rows.rows):
        log.info("PreferenceAccuracy is left out: the rows have no rejected answers")
    if Metric.MEAN_REWARD in wanted.metrics and plan.online is None:
        log.info("MeanReward is left out: method %s has no rewards", plan.method)
    measured: dict[str, _Measured] = {}
    for system in _systems(wanted.baselines, bench):
        examples = rows.with_shots(wanted.few_shot_examples) if system == Baseline.FEW_SHOT else rows.examples
        with systems.model(system) as model:
            measured[system] = _measure(plan, bench, model, examples, rows)
    scores = [each for system, found in measured.items() for each in _scores(plan, system, found, rows)]
    for each in scores:
        log.info("%s %s: %.4f [%.4f, %.4f]", each.system, each.metric, each.value, each.low or 0, each.high or 0)
    return Evaluation(split=wanted.split, scores=tuple(scores), rows=_record(rows, measured))


def _systems(baselines: tuple[Baseline, ...], bench: Workbench) -> list[str]:
    """Tuned first, then the baselines; plain text cannot be shown as solved examples."""
    is_text = bench.revision.row_format is RowFormat.TEXT
    return [TUNED, *(each.value for each in baselines if not (is_text and each is Baseline.FEW_SHOT))]


def _measure(
    plan: TrainingPlan,
    bench: Workbench,
    model: Any,  # noqa: ANN401 - transformers has no types
    examples: list[Example],
    rows: HeldOut,
) -> _Measured:
    metrics, renderer = plan.evaluation.metrics, bench.renderer
    losses = answers = preferred = rewards = None
    if not _have_answers(bench, rows):
        metrics = tuple(each for each in metrics if each not in (Metric.EVAL_LOSS, Metric.EXACT_MATCH))
    has_pairs = Metric.PREFERENCE_ACCURACY in metrics and all("rejected" in row for row in rows.rows)
    if Metric.EVAL_LOSS in metrics or has_pairs:
        losses = _losses(bench, model, examples)
    if has_pairs:
        preferred = _preferred(losses or [], _losses(bench, model, _with_worse_answers(rows, examples)))
    if Metric.EXACT_MATCH in metrics and bench.revision.row_format is not RowFormat.TEXT:
        prompts = [renderer.prompt_ids(example) for example in examples]
        greedy = greedy_answers(model, prompts, rows.max_new_tokens, renderer.stop_ids())
        answers = [bench.tokenizer.decode(answer.ids, skip_special_tokens=True) for answer in greedy]
    if Metric.MEAN_REWARD in metrics and plan.online is not None:
        rewards = mean_rewards(plan.online, bench, model, [renderer.prompt_ids(each) for each in examples], rows)
    return _Measured(losses if Metric.EVAL_LOSS in metrics else None, answers, preferred, rewards)


def _have_answers(bench: Workbench, rows: HeldOut) -> bool:
    return bench.revision.row_format is RowFormat.TEXT or all(each.answer.strip() for each in rows.examples)


def _losses(bench: Workbench, model: Any, examples: list[Example]) -> list[Loss]:  # noqa: ANN401
    tokens = [pieces_of(each, bench.context, split_long=True) for each in bench.renderer.example_tokens(examples)]
    found = iter(supervised_losses(model, [piece for pieces in tokens for piece in pieces]))
    return [_summed([next(found) for _ in pieces]) for pieces in tokens]


def _with_worse_answers(rows: HeldOut, examples: list[Example]) -> list[Example]:
    """The same prompts, solved rows included, with the answers that were rejected."""
    worse = [rows.renderer.example(with_answer(row, row["rejected"])) for row in rows.rows]
    return [
        replace(each, completion=other.completion, answer=other.answer)
        for each, other in zip(examples, worse, strict=True)
    ]


def _preferred(chosen: list[Loss], rejected: list[Loss]) -> list[float]:
    """By mean log-probability per token, as SimPO judges (Meng et al. 2024, eq. 4): a sum prefers short answers."""
    return [
        float(good.total / max(good.tokens, 1) < bad.total / max(bad.tokens, 1))
        for good, bad in zip(chosen, rejected, strict=True)
    ]


def _summed(losses: list[Loss]) -> Loss:
    return Loss(sum(loss.total for loss in losses), sum(loss.tokens for loss in losses))


def _scores(plan: TrainingPlan, system: str, measured: _Measured, rows: HeldOut) -> list[Score]:
    seed = plan.hyperparameters.seed
    scores = []
    if measured.losses is not None:
        totals, tokens = zip(*measured.losses, strict=True)
        scores.append(score(Metric.EVAL_LOSS, system, totals, tokens, seed))
    if measured.answers is not None:
        matches = [
            float(answer.strip() == example.answer.strip())
            for answer, example in zip(measured.answers, rows.examples, strict=True)
        ]
        scores.append(score(Metric.EXACT_MATCH, system, matches, [1.0] * len(matches), seed))
    if measured.preferred is not None:
        ones = [1.0] * len(measured.preferred)
        scores.append(score(Metric.PREFERENCE_ACCURACY, system, measured.preferred, ones, seed))
    if measured.rewards is not None:
        scores.append(score(Metric.MEAN_REWARD, system, measured.rewards, [1.0] * len(measured.rewards), seed))
    return scores


def _record(rows: HeldOut, measured: dict[str, _Measured]) -> tuple[EvaluatedRow, ...]:
    return tuple(
        EvaluatedRow(
            prompt=example.prompt,
            reference=example.answer,
            answers={system: found.answers[at] for system, found in measured.items() if found.answers},
            losses={
                system: round(found.losses[at].total / max(found.losses[at].tokens, 1), 6)
                for system, found in measured.items()
                if found.losses
            },
        )
        for at, example in enumerate(rows.examples)
    )
