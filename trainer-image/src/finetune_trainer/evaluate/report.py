"""`report.html`: one page about a run that needs no network, beside `evaluation.json`."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from finetune_contract.evaluating import TUNED, Metric, Score
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
        best={metric: best_of(metric, evaluation.scores) for metric in Metric},
        tuned=TUNED,
        curves=Markup(loss_curves(history)),  # noqa: S704 - numbers and our own words
        samples=samples(evaluation.rows),
        cut=_cut,
        many_labels=_MANY_LABELS,
        adapter_variant=plan.adapter.variant.value if plan.adapter else "every weight",
    )


def best_of(metric: Metric, scores: Sequence[Score]) -> str | None:
    """The system with the best value; None where all are equal."""
    values = {each.system: each.value for each in scores if each.metric == metric}
    if len(set(values.values())) < 2:
        return None
    return (max if metric.higher_is_better else min)(values, key=lambda system: values[system])


@dataclass(frozen=True)
class Sample:
    """A row that is shown."""

    kind: str
    row: EvaluatedRow

    def is_right(self, system: str) -> bool:
        """Whether the answer is the reference."""
        return self.row.answers[system].strip() == self.row.reference.strip()


_KINDS = (
    "only a baseline is right",
    "only the tuned model is right",
    "all answers differ from the reference",
    "all agree",
)


def samples(rows: Sequence[EvaluatedRow], most: int = _SAMPLES) -> list[Sample]:
    """Rows side by side, disagreements first: what was lost, what was won, what nobody can, the rest."""
    by_kind: dict[str, list[Sample]] = {kind: [] for kind in _KINDS}
    for row in rows:
        if row.answers:
            kind = _kind(row)
            by_kind[kind].append(Sample(kind, row))
    found = [each for kind in _KINDS for each in by_kind[kind][:_MOST_OF_A_KIND]]
    rest = [each for kind in _KINDS for each in by_kind[kind][_MOST_OF_A_KIND:]]
    chosen = (found + rest)[:most]
    return sorted(chosen, key=lambda each: _KINDS.index(each.kind))


def _kind(row: EvaluatedRow) -> str:
    """By the judge's verdicts where there are any, else by the reference."""
    if row.verdicts:
        lost, won = "Baseline" in row.verdicts.values(), "Tuned" in row.verdicts.values()
        return _KINDS[0 if lost else 1 if won else 3]
    right = {system: answer.strip() == row.reference.strip() for system, answer in row.answers.items()}
    ours, theirs = right.pop(TUNED, False), list(right.values())
    if ours:
        return _KINDS[3 if all(theirs) else 1]
    return _KINDS[0 if any(theirs) else 2]


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
