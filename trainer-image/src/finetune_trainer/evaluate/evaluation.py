"""The evaluation stage: the tuned model beside its baselines, on rows that were never trained on."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import TUNED, Baseline, Metric, Score
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import TrainingPlan
from finetune_trainer.evaluate import benchmark, judge
from finetune_trainer.evaluate.answered import (
    NEED_REFERENCE,
    OF_ANSWERS,
    confusion_of,
    grade_of,
    measure_answers,
)
from finetune_trainer.evaluate.generate import Loss
from finetune_trainer.evaluate.heldout import HeldOut, held_out
from finetune_trainer.evaluate.measures import Mean, Measure
from finetune_trainer.evaluate.record import Confusion, EvaluatedRow, Evaluation
from finetune_trainer.evaluate.rewarded import mean_rewards
from finetune_trainer.evaluate.scores import score
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.evaluate.systems import Systems
from finetune_trainer.train.render import Example
from finetune_trainer.train.rows import with_answer
from finetune_trainer.train.sequences import pieces_of
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)

_OF_LOSS = (Metric.EVAL_LOSS, Metric.PERPLEXITY)


def check_settings(plan: TrainingPlan) -> None:
    """Find out before training what an evaluation after it would fail for.

    Raises:
        FineTuneError: InvalidPlan, naming the field.
    """
    wanted = plan.evaluation
    for metric in wanted.metrics:
        grade_of(metric, wanted)
    if Metric.JUDGE_WIN_RATE in wanted.metrics:
        judge.check(wanted)
    if Metric.BENCHMARK in wanted.metrics:
        benchmark.check(wanted)


def evaluate(plan: TrainingPlan, bench: Workbench, systems: Systems) -> Evaluation:
    """Measure every metric of the plan on every system; without held-out rows there are no scores.

    What fails for a judge or a task is in the result's `failure`, beside all that was measured.
    """
    wanted, rows = plan.evaluation, held_out(plan, bench)
    if not wanted.metrics:
        return Evaluation(split=wanted.split, notes=("nothing is measured: no metric is asked for",))
    if not rows.examples:
        message = f"nothing is measured: the dataset has no {wanted.split} rows; give it some with spec.split"
        log.warning(message)
        return Evaluation(split=wanted.split, notes=(message,))
    return _Comparison(plan, bench, systems, rows).run()


@dataclass
class _Found:
    """What one system did."""

    measures: dict[Metric, Measure] = field(default_factory=dict)
    losses: list[Loss] | None = None
    answers: list[str] | None = None


class _Comparison:
    """One evaluation as it goes."""

    def __init__(self, plan: TrainingPlan, bench: Workbench, systems: Systems, rows: HeldOut) -> None:
        self._plan = plan
        self._wanted = plan.evaluation
        self._bench = bench
        self._systems = systems
        self._rows = rows
        self._labels = sorted({str(row["label"]) for row in rows.train}) if self._is_classification else []
        self._notes: list[str] = []
        self._metrics = self._measurable()
        self._found: dict[str, _Found] = {}
        self._record = Evaluation(split=plan.evaluation.split)

    @property
    def _is_classification(self) -> bool:
        return self._bench.revision.row_format is RowFormat.CLASSIFICATION

    def run(self) -> Evaluation:
        seconds: dict[str, float] = {}
        recalled: list[str] = []
        for system in self._names():
            began = time.monotonic()
            subject = Subject(system, self._systems, self._systems.bench(system))
            self._found[system] = self._measure(subject)
            self._benchmark(subject)
            seconds[system] = round(time.monotonic() - began, 3)
            recalled += [system] if subject.recalled else []
            if subject.speed is not None:
                self._record = self._record.model_copy(update={"speed": subject.speed})
        scores = self._scores()
        update = {
            "rows": self._evaluated_rows(),
            "confusions": tuple(self._confusions()),
            "seconds": seconds,
            "recalled": tuple(recalled),
        }
        self._record = self._record.model_copy(update=update)
        scores += self._judge()
        for each in scores:
            log.info("%s %s: %.4f [%.4f, %.4f]", each.system, each.metric, each.value, each.low or 0, each.high or 0)
        for note in self._notes:
            log.info(note)
        order = {metric: at for at, metric in enumerate(self._wanted.metrics)}
        systems = {system: at for at, system in enumerate(self._names())}
        scores.sort(key=lambda each: (systems[each.system], order[each.metric]))
        return self._record.model_copy(update={"scores": tuple(scores), "notes": tuple(self._notes)})

    # --- what and whom ---

    def _names(self) -> list[str]:
        """Tuned first, then the baselines; plain text cannot be shown as solved examples."""
        left_out = set()
        if self._bench.revision.row_format is RowFormat.TEXT:
            left_out.add(Baseline.FEW_SHOT)
        if self._wanted.previous is None:
            left_out.add(Baseline.PREVIOUS)
        return [TUNED, *(each.value for each in self._wanted.baselines if each not in left_out)]

    def _measurable(self) -> list[Metric]:
        """The wanted metrics without those for which the rows lack something, each with a note."""
        rows = self._rows
        left_out: dict[Metric, str] = {}
        is_text = self._bench.revision.row_format is RowFormat.TEXT
        if not is_text and not all(each.answer.strip() for each in rows.examples):
            left_out |= dict.fromkeys(NEED_REFERENCE, "there are rows without an answer to compare with")
        if is_text:
            left_out |= dict.fromkeys(OF_ANSWERS, "Text rows have no prompt to answer")
        if not self._is_classification:
            classes = (Metric.ACCURACY, Metric.MACRO_F1, Metric.COHEN_KAPPA)
            left_out |= dict.fromkeys(classes, "only Classification rows have labels")
        if not all("rejected" in row for row in rows.rows):
            left_out[Metric.PREFERENCE_ACCURACY] = "the rows have no rejected answers"
        if self._plan.online is None:
            left_out[Metric.MEAN_REWARD] = f"method {self._plan.method} has no rewards"
        self._notes += [f"{each} is left out: {left_out[each]}" for each in self._wanted.metrics if each in left_out]
        return [each for each in self._wanted.metrics if each not in left_out]

    # --- one system ---

    def _measure(self, subject: Subject) -> _Found:
        found, metrics, bench = _Found(), self._metrics, self._systems.bench(subject.system)
        examples = self._examples(subject.system, bench)
        with_losses = [each for each in metrics if each in _OF_LOSS]
        if bench is not self._bench and (with_losses or Metric.PREFERENCE_ACCURACY in metrics):
            with_losses = []
            self._notes.append("the losses of Previous are left out: it reads with another tokenizer")
        elif with_losses or Metric.PREFERENCE_ACCURACY in metrics:
            found.losses = _losses(bench, subject, examples)
            if Metric.PREFERENCE_ACCURACY in metrics:
                worse = _losses(bench, subject, _with_worse_answers(self._rows, examples))
                found.measures[Metric.PREFERENCE_ACCURACY] = Mean.over(_preferred(found.losses, worse))
        for metric in with_losses:
            totals, tokens = zip(*(found.losses or ()), strict=True)
            found.measures[metric] = Mean.over(totals, tokens, exponential=metric is Metric.PERPLEXITY)
        prompts = [bench.renderer.prompt_ids(example) for example in examples]
        if any(each in OF_ANSWERS for each in metrics):
            ids = subject.answers(prompts, self._rows.max_new_tokens)
            found.answers = [bench.tokenizer.decode(each, skip_special_tokens=True) for each in ids]
            found.measures |= self._of_answers(found.answers)
        if Metric.MEAN_REWARD in metrics and self._plan.online is not None:
            rewards = mean_rewards(self._plan.online, bench, subject, prompts, self._rows)
            found.measures[Metric.MEAN_REWARD] = Mean.over(rewards)
        return found

    def _examples(self, system: str, bench: Workbench) -> list[Example]:
        if system == Baseline.FEW_SHOT:
            return self._rows.with_shots(self._wanted.few_shot_examples)
        if bench is not self._bench:
            return [bench.renderer.example(row) for row in self._rows.rows]
        return self._rows.examples

    def _of_answers(self, answers: list[str]) -> dict[Metric, Measure]:
        references = [each.answer for each in self._rows.examples]
        found = {
            metric: measure_answers(metric, self._wanted, answers, references, self._labels)
            for metric in self._metrics
            if metric in OF_ANSWERS
        }
        return {metric: measure for metric, measure in found.items() if measure is not None}

    def _benchmark(self, subject: Subject) -> None:
        """Tasks of lm-eval-harness; once one has failed, no further system is asked."""
        if Metric.BENCHMARK not in self._metrics or self._record.failure is not None:
            return
        assert self._wanted.benchmark is not None
        try:
            found = subject.tasks(self._wanted.benchmark)
        except FineTuneError as error:
            self._fail(error)
            return
        results = tuple(each.model_copy(update={"system": subject.system}) for each in found.results)
        self._record = self._record.model_copy(update={"tasks": (*self._record.tasks, *results)})
        self._found[subject.system].measures[Metric.BENCHMARK] = Mean.over(found.rows)

    # --- all systems ---

    def _scores(self) -> list[Score]:
        seed, scores = self._plan.hyperparameters.seed, []
        for system, found in self._found.items():
            for metric, measure in found.measures.items():
                value = float(measure.of(measure.rows))
                if not math.isfinite(value):
                    self._notes.append(f"{metric} of {system} is left out: it is {value}")
                    continue
                tuned = None if system == TUNED else self._found[TUNED].measures.get(metric)
                scores.append(score(metric, system, measure, seed, tuned))
        return scores

    def _judge(self) -> list[Score]:
        """What the judge prefers; its failure leaves everything else as it is."""
        if Metric.JUDGE_WIN_RATE not in self._metrics or self._record.failure is not None:
            return []
        answers = {system: found.answers for system, found in self._found.items() if found.answers is not None}
        if len(answers) == 1:
            self._notes.append("JudgeWinRate is left out: spec.evaluation.baselines has nothing to compare with")
            return []
        try:
            verdict = judge.compare(self._wanted, self._rows.examples, answers, self._plan.hyperparameters.seed)
        except FineTuneError as error:
            self._fail(error)
            return []
        rows = tuple(
            row.model_copy(update={"verdicts": {system: words[at] for system, words in verdict.words.items()}})
            for at, row in enumerate(self._record.rows)
        )
        update = {"judgements": verdict.judgements, "judge": verdict.use, "rows": rows}
        self._record = self._record.model_copy(update=update)
        return list(verdict.scores)

    def _fail(self, error: FineTuneError) -> None:
        if error.reason is not FailureReason.EVALUATION_FAILED:
            raise error
        log.warning("%s: %s", error.reason, error)
        self._record = self._record.model_copy(update={"failure": error.to_failure()})

    def _confusions(self) -> list[Confusion]:
        if not self._is_classification:
            return []
        references = [each.answer for each in self._rows.examples]
        return [
            confusion_of(system, found.answers, references, self._labels)
            for system, found in self._found.items()
            if found.answers is not None
        ]

    def _evaluated_rows(self) -> tuple[EvaluatedRow, ...]:
        return tuple(
            EvaluatedRow(
                prompt=example.prompt,
                reference=example.answer,
                answers={system: found.answers[at] for system, found in self._found.items() if found.answers},
                losses={
                    system: round(found.losses[at].total / max(found.losses[at].tokens, 1), 6)
                    for system, found in self._found.items()
                    if found.losses and math.isfinite(found.losses[at].total)
                },
            )
            for at, example in enumerate(self._rows.examples)
        )


def _losses(bench: Workbench, subject: Subject, examples: list[Example]) -> list[Loss]:
    tokens = [pieces_of(each, bench.context, split_long=True) for each in bench.renderer.example_tokens(examples)]
    found = iter(subject.losses([piece for pieces in tokens for piece in pieces]))
    return [_summed([next(found) for _ in pieces]) for pieces in tokens]


def _with_worse_answers(rows: HeldOut, examples: list[Example]) -> list[Example]:
    """The same prompts, solved rows included, with the answers that were rejected."""
    worse = [rows.renderer.example(with_answer(row, row["rejected"])) for row in rows.rows]
    return [
        replace(each, completion=other.completion, answer=other.answer)
        for each, other in zip(examples, worse, strict=True)
    ]


def _preferred(chosen: Sequence[Loss], rejected: Sequence[Loss]) -> list[float]:
    """By mean log-probability per token, as SimPO judges (Meng et al. 2024, eq. 4): a sum prefers short answers."""
    return [
        float(good.total / max(good.tokens, 1) < bad.total / max(bad.tokens, 1))
        for good, bad in zip(chosen, rejected, strict=True)
    ]


def _summed(losses: list[Loss]) -> Loss:
    return Loss(sum(loss.total for loss in losses), sum(loss.tokens for loss in losses))
