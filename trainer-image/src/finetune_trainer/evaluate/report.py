"""`report.html`: one page about a run that needs no network, beside `evaluation.json`."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from finetune_contract.evaluating import SIGNIFICANT, TUNED, Metric, Score, clearly_better, p_words
from finetune_contract.paths import EVALUATION_FILE, HISTORY_FILE, REPORT_FILE
from finetune_contract.results import TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store
from finetune_trainer.evaluate.curves import loss_curves
from finetune_trainer.evaluate.record import EvaluatedRow, Evaluation

log = logging.getLogger(__name__)

_SAMPLES = 20
_MOST_OF_A_KIND = 8
"""Samples of one kind, so that others are seen, too."""
_LONGEST_TEXT = 1500
"""Characters of one text; `evaluation.json` has all."""
_MANY_LABELS = 24
"""Labels of a confusion matrix; a larger one is left to `evaluation.json`."""


def write_report(
    store: Store, plan: TrainingPlan, evaluation: Evaluation, folder: str, outcome: TrainingResult | None
) -> None:
    """Write `evaluation.json` and the page beside it.

    A page that cannot be made is no reason to lose a run: it is logged.
    """
    store.record(plan.run_key, f"{folder}/{EVALUATION_FILE}", evaluation.to_json())
    try:
        text = render(plan, evaluation, outcome, _history(store, plan.run_key))
    except Exception:
        log.warning("the report could not be made; %s has the figures", EVALUATION_FILE, exc_info=True)
        return
    store.record(plan.run_key, f"{folder}/{REPORT_FILE}", text)


def promote(store: Store, plan: TrainingPlan, folder: str) -> None:
    """Make what a folder has the run's newest."""
    for name in (EVALUATION_FILE, REPORT_FILE):
        if text := store.recorded(plan.run_key, f"{folder}/{name}"):
            store.record(plan.run_key, name, text)


def render(
    plan: TrainingPlan,
    evaluation: Evaluation,
    outcome: TrainingResult | None,
    history: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page.

    Args:
        plan: What was asked.
        evaluation: What was measured.
        outcome: Of the run, once it has succeeded.
        history: What was logged while training, as transformers' `log_history`.
    """
    return _template().render(
        plan=plan,
        evaluation=evaluation,
        outcome=outcome,
        metrics=[
            metric for metric in plan.evaluation.metrics if any(each.metric == metric for each in evaluation.scores)
        ],
        systems=list(dict.fromkeys(each.system for each in evaluation.scores)),
        scores={(each.metric, each.system): each for each in evaluation.scores},
        better={metric: better_of(metric, evaluation.scores) for metric in Metric},
        verdict_of=verdict_of,
        p_words=p_words,
        significant=SIGNIFICANT,
        tuned=TUNED,
        curves=Markup(loss_curves(history)),  # noqa: S704 - numbers and our own words
        samples=samples(evaluation.rows),
        cut=_cut,
        many_labels=_MANY_LABELS,
        adapter_variant=plan.adapter.variant.value if plan.adapter else "every weight",
    )


def better_of(metric: Metric, scores: Sequence[Score]) -> set[str]:
    """The systems whose figure is marked: what may be an accident is not."""
    baselines = {
        each.system: (each.difference, each.p_value)
        for each in scores
        if each.metric == metric and each.system != TUNED
    }
    return clearly_better(metric, baselines)


def verdict_of(score: Score) -> str:
    """Whether the tuned model is `ahead` of a score's baseline or `behind` it; empty where that may be an accident."""
    better = clearly_better(score.metric, {score.system: (score.difference, score.p_value)})
    return "ahead" if TUNED in better else "behind" if better else ""


@dataclass(frozen=True)
class Sample:
    """A row that is shown."""

    kind: str
    """Why, in words."""
    row: EvaluatedRow

    def is_right(self, system: str) -> bool:
        """Whether the answer is the reference."""
        return self.row.answers[system].strip() == self.row.reference.strip()


_BY_REFERENCE = (
    "a baseline is right, the tuned model is wrong",
    "the tuned model is right, a baseline is wrong",
    "all answers differ from the reference",
    "all answers are right",
)
_BY_JUDGE = (
    "the judge prefers a baseline's answer",
    "the judge prefers the tuned model's answer",
    "the judge prefers neither",
)


def samples(rows: Sequence[EvaluatedRow], most: int = _SAMPLES) -> list[Sample]:
    """Rows side by side, disagreements first: what was lost, what was won, what nobody can, the rest."""
    kinds = (*_BY_JUDGE, *_BY_REFERENCE)
    by_kind: dict[str, list[Sample]] = {kind: [] for kind in kinds}
    for row in rows:
        if row.answers:
            kind = _kind(row)
            by_kind[kind].append(Sample(kind, row))
    found = [each for kind in kinds for each in by_kind[kind][:_MOST_OF_A_KIND]]
    rest = [each for kind in kinds for each in by_kind[kind][_MOST_OF_A_KIND:]]
    return sorted((found + rest)[:most], key=lambda each: kinds.index(each.kind))


def _kind(row: EvaluatedRow) -> str:
    """By the judge's verdicts where there are any, else by the reference."""
    if row.verdicts:
        lost, won = "Baseline" in row.verdicts.values(), "Tuned" in row.verdicts.values()
        return _BY_JUDGE[0 if lost else 1 if won else 2]
    right = {system: answer.strip() == row.reference.strip() for system, answer in row.answers.items()}
    ours, theirs = right.pop(TUNED, False), list(right.values())
    if ours:
        return _BY_REFERENCE[3 if all(theirs) else 1]
    return _BY_REFERENCE[0 if any(theirs) else 2]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} … ({len(text):,} characters)"


def _history(store: Store, run_key: str) -> list[dict[str, Any]]:
    found = store.recorded(run_key, HISTORY_FILE)
    return list(json.loads(found)) if found else []


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("finetune_trainer.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
