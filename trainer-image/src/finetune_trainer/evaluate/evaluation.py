"""The evaluation stage: the tuned model beside its baselines, on rows that were never trained on."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import TUNED, Baseline, Metric, Score
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import TrainingPlan
from finetune_trainer.data.instructions import stripped_off
from finetune_trainer.evaluate import benchmark, judge
from finetune_trainer.evaluate.answered import (
    NEED_REFERENCE,
    OF_ANSWERS,
    confusion_of,
    grade_of,
    measure_answers,
)
from finetune_trainer.evaluate.baselines import Memory
from finetune_trainer.evaluate.endpoints import answers_of, conversation
from finetune_trainer.evaluate.generate import Loss
from finetune_trainer.evaluate.heldout import HeldOut, held_out
from finetune_trainer.evaluate.losses import losses_of, preferred, with_worse_answers
from finetune_trainer.evaluate.measures import Mean, Measure
from finetune_trainer.evaluate.record import Confusion, EndpointUse, EvaluatedRow, Evaluation
from finetune_trainer.evaluate.rewarded import RewardModel, mean_rewards
from finetune_trainer.evaluate.scores import score
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.evaluate.systems import Systems
from finetune_trainer.train.render import Example
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
        self._endpoints = {each.name: each.endpoint for each in plan.evaluation.named_baselines if each.endpoint}
        self._instruction = stripped_off(bench.revision.directory)
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
            with self._kept_apart(system):
                recalled += [system] if self._measure_system(system) else []
            seconds[system] = round(time.monotonic() - began, 3)
        with self._kept_apart(Metric.REWARD_SCORE):
            self._reward()
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

    @contextmanager
    def _kept_apart(self, system: str) -> Iterator[None]:
        """What is wrong with another job's artifact, or an endpoint, is no reason to lose this job's."""
        try:
            yield
        except FineTuneError as error:
            if system not in {each.name for each in self._wanted.named_baselines} | {Metric.REWARD_SCORE}:
                raise
            message = f"spec.evaluation: {system}: {error}; the artifact is kept"
            is_named = error.reason is FailureReason.EVALUATION_FAILED
            self._fail(error if is_named else FineTuneError(FailureReason.EVALUATION_FAILED, message))

    # --- what and whom ---

    def _names(self) -> list[str]:
        """Tuned first, then the baselines; plain text cannot be shown as solved examples."""
        left_out = set()
        if self._bench.revision.row_format is RowFormat.TEXT:
            left_out |= {Baseline.FEW_SHOT, *self._endpoints}
        if self._wanted.previous is None:
            left_out.add(Baseline.PREVIOUS)
        if self._instruction is None:
            left_out.add(Baseline.ORIGINAL_PROMPT)
        wanted = [*(each.value for each in self._wanted.baselines), *(n.name for n in self._wanted.named_baselines)]
        return [TUNED, *(each for each in wanted if each not in left_out)]

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
        if self._wanted.reward_model is None:
            left_out[Metric.REWARD_SCORE] = "the job of spec.evaluation.rewardModel has made nothing yet"
        if Baseline.ORIGINAL_PROMPT in self._wanted.baselines and self._instruction is None:
            self._notes.append("OriginalPrompt is left out: nothing was cut off the rows of this revision")
        self._notes += [f"{each} is left out: {left_out[each]}" for each in self._wanted.metrics if each in left_out]
        return [each for each in self._wanted.metrics if each not in left_out]

    # --- one system ---

    def _measure_system(self, system: str) -> bool:
        """Measure everything of one system; whether all of it was known."""
        if system in self._endpoints:
            return self._ask(system)
        subject = Subject(system, self._systems, self._systems.bench(system))
        self._found[system] = self._measure(subject)
        self._benchmark(subject)
        if subject.speed is not None:
            self._record = self._record.model_copy(update={"speed": subject.speed})
        return subject.recalled

    def _measure(self, subject: Subject) -> _Found:
        found, metrics, bench = _Found(), self._metrics, self._systems.bench(subject.system)
        examples = self._examples(subject.system, bench)
        prompts = [bench.renderer.prompt_ids(example) for example in examples]
        if self._is_too_long(subject.system, bench, prompts):
            return found
        with_losses = [each for each in metrics if each in _OF_LOSS]
        if bench.renderer is not self._bench.renderer and (with_losses or Metric.PREFERENCE_ACCURACY in metrics):
            with_losses = []
            self._notes.append(f"the losses of {subject.system} are left out: it reads with another tokenizer")
        elif with_losses or Metric.PREFERENCE_ACCURACY in metrics:
            found.losses = losses_of(bench, subject, examples)
            if Metric.PREFERENCE_ACCURACY in metrics:
                worse = losses_of(bench, subject, with_worse_answers(self._rows, examples))
                found.measures[Metric.PREFERENCE_ACCURACY] = Mean.over(preferred(found.losses, worse))
        for metric in with_losses:
            totals, tokens = zip(*(found.losses or ()), strict=True)
            found.measures[metric] = Mean.over(totals, tokens, exponential=metric is Metric.PERPLEXITY)
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
        if system == Baseline.ORIGINAL_PROMPT and self._instruction is not None:
            return self._rows.with_instruction(self._instruction)
        if bench.renderer is not self._bench.renderer:
            return [bench.renderer.example(row) for row in self._rows.rows]
        return self._rows.examples

    def _is_too_long(self, system: str, bench: Workbench, prompts: list[list[int]]) -> bool:
        """Whether prompts that are longer than the tuned model's do not fit the system's context; noted."""
        if self._bench.revision.row_format is RowFormat.TEXT:
            return False
        long = sum(len(prompt) + self._rows.max_new_tokens > bench.context for prompt in prompts)
        if long:
            what = f"{long} of {len(prompts)} prompts do not fit its context of {bench.context} tokens"
            self._notes.append(f"{system} is left out: {what}")
        return long > 0

    def _ask(self, system: str) -> bool:
        """Measure a baseline behind an endpoint by its answers; whether they were known."""
        plan, found = self._endpoints[system], self._found.setdefault(system, _Found())
        others = [each.value for each in self._metrics if each not in OF_ANSWERS]
        if others:
            self._notes.append(f"{', '.join(others)} of {system}: left out, an endpoint gives answers only")
        if len(others) == len(self._metrics):
            return False
        asked = [conversation(row, self._instruction, plan.system_prompt) for row in self._rows.rows]
        memory = Memory(self._bench.store, f"{plan.url}#{plan.model}", "endpoint")
        uses: list[EndpointUse] = []

        def measure() -> list[str]:
            answers, use = answers_of(system, plan, asked, self._rows.max_new_tokens)
            uses.append(use)
            return answers

        found.answers, is_known = memory.texts([*map(list, asked), self._rows.max_new_tokens], measure)
        self._record = self._record.model_copy(update={"endpoints": (*self._record.endpoints, *uses)})
        found.measures |= self._of_answers(found.answers)
        return is_known

    def _reward(self) -> None:
        """What a reward model gives the answers of every system."""
        reference = self._wanted.reward_model
        if Metric.REWARD_SCORE not in self._metrics or reference is None:
            return
        self._systems.release()
        model = RewardModel(self._bench.store.verify(reference), self._bench)
        for found in self._found.values():
            if found.answers is not None:
                found.measures[Metric.REWARD_SCORE] = Mean.over(model.scores(self._rows.rows, found.answers))

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
