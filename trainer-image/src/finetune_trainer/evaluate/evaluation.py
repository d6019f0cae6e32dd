"""The evaluation stage: the tuned model beside its baselines, on rows that were never trained on."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import TUNED, Metric, Score
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import TrainingPlan
from finetune_trainer.data.instructions import stripped_off
from finetune_trainer.evaluate import benchmark, judge
from finetune_trainer.evaluate.answered import confusion_of, grade_of
from finetune_trainer.evaluate.heldout import HeldOut, held_out
from finetune_trainer.evaluate.measures import Mean
from finetune_trainer.evaluate.measuring import Found, Terms, ask_endpoint, measure_model
from finetune_trainer.evaluate.record import Confusion, EvaluatedRow, Evaluation
from finetune_trainer.evaluate.rewarded import RewardModel
from finetune_trainer.evaluate.scope import scope_of
from finetune_trainer.evaluate.scores import score
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.evaluate.systems import Systems
from finetune_trainer.train.workbench import Workbench

log = logging.getLogger(__name__)


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


class _Comparison:
    """One evaluation as it goes."""

    def __init__(self, plan: TrainingPlan, bench: Workbench, systems: Systems, rows: HeldOut) -> None:
        self._plan = plan
        self._wanted = plan.evaluation
        self._systems = systems
        self._rows = rows
        instruction, row_format = stripped_off(bench.revision.directory), bench.revision.row_format
        scope = scope_of(plan, row_format, rows, instruction)
        self._names, self._metrics, self._notes = scope.systems, scope.metrics, list(scope.notes)
        labels = {str(row["label"]) for row in rows.train} if row_format is RowFormat.CLASSIFICATION else set()
        self._terms = Terms(plan, bench, rows, scope.metrics, instruction, tuple(sorted(labels)))
        self._found: dict[str, Found] = {}
        self._record = Evaluation(split=plan.evaluation.split)

    def run(self) -> Evaluation:
        seconds: dict[str, float] = {}
        recalled: list[str] = []
        for system in self._names:
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
        scores.sort(key=lambda each: (self._names.index(each.system), self._wanted.metrics.index(each.metric)))
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

    # --- one system ---

    def _measure_system(self, system: str) -> bool:
        """Measure everything of one system; whether all of it was known."""
        found = self._found[system] = Found()
        endpoint = next((each.endpoint for each in self._wanted.named_baselines if each.name == system), None)
        try:
            if endpoint is not None:
                ask_endpoint(self._terms, system, endpoint, found)
                return found.answers is not None and found.use is None
            bench = self._systems.bench(system)
            subject = Subject(system, self._systems, bench)
            measure_model(self._terms, subject, bench, found)
            self._benchmark(subject)
            if subject.speed is not None:
                self._record = self._record.model_copy(update={"speed": subject.speed})
            return subject.recalled
        finally:
            self._notes += found.notes
            if found.use is not None:
                self._record = self._record.model_copy(update={"endpoints": (*self._record.endpoints, found.use)})

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

    def _reward(self) -> None:
        """What a reward model gives the answers of every system."""
        reference, bench = self._wanted.reward_model, self._terms.bench
        if Metric.REWARD_SCORE not in self._metrics or reference is None:
            return
        self._systems.release()
        model = RewardModel(bench.store.verify(reference), bench)
        for found in self._found.values():
            if found.answers is not None:
                found.measures[Metric.REWARD_SCORE] = Mean.over(model.scores(self._rows.rows, found.answers))

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
        plan, seed = self._wanted.judge, self._plan.hyperparameters.seed
        assert plan is not None, "checked before training"
        with judge.endpoint_of(plan) as endpoint:
            try:
                verdict = judge.compare(plan, endpoint, self._rows.examples, answers, seed)
            except FineTuneError as error:
                self._fail(error)
                return []
            finally:
                self._record = self._record.model_copy(update={"judge": endpoint.use()})
        rows = tuple(
            row.model_copy(update={"verdicts": {system: words[at] for system, words in verdict.words.items()}})
            for at, row in enumerate(self._record.rows)
        )
        update = {"judgements": verdict.judgements, "rows": rows}
        self._record = self._record.model_copy(update=update)
        return list(verdict.scores)

    def _fail(self, error: FineTuneError) -> None:
        if error.reason is not FailureReason.EVALUATION_FAILED:
            raise error
        log.warning("%s: %s", error.reason, error)
        self._record = self._record.model_copy(update={"failure": error.to_failure()})

    def _confusions(self) -> list[Confusion]:
        if not self._terms.is_classification:
            return []
        return [
            confusion_of(system, found.answers, self._terms.references, self._terms.labels)
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
