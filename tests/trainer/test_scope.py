"""What is measured on whom, and what is said about the rest."""

import json
from typing import Any

import pytest

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import Metric
from finetune_trainer.data.instructions import Stripped
from finetune_trainer.evaluate.heldout import HeldOut
from finetune_trainer.evaluate.scope import scope_of
from finetune_trainer.train.render import Example
from tests.trainer import runs, tiny
from tests.trainer.conftest import Workshop

ALL = [each.value for each in Metric if each not in (Metric.JUDGE_WIN_RATE, Metric.BENCHMARK)]
HOSTED = {"name": "hosted", "endpoint": {"url": "http://x/v1", "model": "m"}}


def rows_of(*answers: str, **columns: Any) -> HeldOut:
    examples = [Example(prompt="p", completion=each, answer=each) for each in answers]
    return HeldOut(None, [columns for _ in answers], examples, [], 8, 64, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row_format", "rows", "measured"),
    [
        pytest.param(
            RowFormat.CLASSIFICATION, rows_of("a"),
            {"EvalLoss", "Perplexity", "ExactMatch", "RegexMatch", "JSONSchemaValid", "TokenF1", "RougeL", "Accuracy",
             "MacroF1", "CohenKappa"}, id="classification",
        ),
        pytest.param(
            RowFormat.MESSAGES, rows_of("a", " \n"), {"RegexMatch", "JSONSchemaValid"}, id="a row without an answer",
        ),
        pytest.param(RowFormat.TEXT, rows_of(""), {"EvalLoss", "Perplexity"}, id="text"),
        pytest.param(
            RowFormat.PREFERENCE, rows_of("a", rejected="b"),
            {"EvalLoss", "Perplexity", "ExactMatch", "RegexMatch", "JSONSchemaValid", "TokenF1", "RougeL",
             "PreferenceAccuracy"}, id="preference",
        ),
    ],
)  # fmt: skip
def test_what_rows_cannot_give_is_left_out_and_said(
    workshop: Workshop, row_format: RowFormat, rows: HeldOut, measured: set[str]
) -> None:
    plan = workshop.plan(evaluation={"metrics": ALL})
    scope = scope_of(plan, row_format, rows, None)
    assert {each.value for each in scope.metrics} == measured
    assert {each.partition(" ")[0] for each in scope.notes} == set(ALL) - measured
    assert all(" is left out: " in each for each in scope.notes)


@pytest.mark.parametrize(
    ("row_format", "instruction", "systems"),
    [
        (RowFormat.MESSAGES, Stripped(start="s"), ("Tuned", "ZeroShot", "FewShot", "OriginalPrompt", "hosted")),
        (RowFormat.MESSAGES, None, ("Tuned", "ZeroShot", "FewShot", "hosted")),
        (RowFormat.TEXT, None, ("Tuned", "ZeroShot")),
    ],
    ids=["all", "nothing was cut off", "text"],
)
def test_baselines_that_there_are_none_of_are_left_out(
    workshop: Workshop, row_format: RowFormat, instruction: Stripped | None, systems: tuple[str, ...]
) -> None:
    wanted = {"metrics": ["EvalLoss"], "baselines": ["ZeroShot", "FewShot", "OriginalPrompt", "Previous"]}
    plan = workshop.plan(evaluation={**wanted, "named_baselines": [HOSTED]})
    scope = scope_of(plan, row_format, rows_of("a"), instruction)
    assert scope.systems == systems
    assert any("OriginalPrompt is left out" in each for each in scope.notes) == (instruction is None)


def test_a_dataset_without_held_out_rows_is_trained_on_and_says_that_nothing_was_measured(workshop: Workshop) -> None:
    rows = {"train": tiny.classification_rows(16, 1)}
    dataset = tiny.publish_dataset(workshop.store, RowFormat.CLASSIFICATION, rows)
    wanted = {"metrics": ["EvalLoss", "Accuracy"], "baselines": ["ZeroShot"]}
    result = runs.run(workshop.store, workshop.plan(dataset=dataset, evaluation=wanted, hyperparameters={"epochs": 1}))
    assert result.artifact is not None
    assert result.evaluation == ()
    found = json.loads((workshop.store.root / "runs/a1/evaluation.json").read_text())
    assert found["notes"] == ["nothing is measured: the dataset has no test rows; give it some with spec.split"]
    assert found["notes"][0] in (workshop.store.root / "runs/a1/report.html").read_text()
