"""What baselines said before is recalled, and only where everything that decides it is the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_cli.report_page import COST_MARK, MARK
from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import Baseline, Metric
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.results import TrainingResult
from finetune_contract.training import ReevaluationPlan
from finetune_trainer.evaluate import benchmark
from finetune_trainer.evaluate.main import reevaluate
from finetune_trainer.evaluate.record import Evaluation
from finetune_trainer.export.publish import publish_outcome
from finetune_trainer.train import recipe
from tests.trainer import runs, tiny
from tests.trainer.conftest import Workshop

WANTED: dict[str, Any] = {"metrics": ["EvalLoss", "Accuracy", "MacroF1"], "baselines": ["ZeroShot", "FewShot"]}
QUICK = {"epochs": 1}


def trained(workshop: Workshop, key: str, **changes: Any) -> tuple[TrainingResult, Evaluation]:
    plan = workshop.plan(**{"evaluation": WANTED, "hyperparameters": QUICK, "run_key": key, **changes})
    return runs.run(workshop.store, plan), runs.evaluation_of(workshop.store, key)


def test_a_second_job_recalls_its_baselines_and_scores_the_same(workshop: Workshop) -> None:
    _, first = trained(workshop, "a1")
    assert first.recalled == ()
    _, second = trained(workshop, "a2", hyperparameters={"epochs": 1, "learning_rate": 1e-3})
    assert second.recalled == ("ZeroShot", "FewShot")
    values = [
        {(each.metric, each.system): each.value for each in found.scores if each.system != "Tuned"}
        for found in (first, second)
    ]
    assert values[0] == values[1]
    assert [row.answers["FewShot"] for row in first.rows] == [row.answers["FewShot"] for row in second.rows]

    changes: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"hyperparameters": {"epochs": 1, "seed": 1}}, ("ZeroShot",)),  # other solved rows
        ({"evaluation": {**WANTED, "few_shot_examples": 2}}, ("ZeroShot",)),
        ({"evaluation": {**WANTED, "max_rows": 7}}, ()),
        ({"base": tiny.publish_model(workshop.store, seed=1)}, ()),
    ]
    for at, (change, recalled) in enumerate(changes):
        assert trained(workshop, f"b{at}", **change)[1].recalled == recalled

    for entry in (workshop.store.root / "baselines").glob("*/measured.json"):
        entry.write_text("{")
    _, again = trained(workshop, "c1")
    assert again.recalled == ()
    assert {each.value for each in again.scores if each.system == "FewShot"} == {
        each.value for each in first.scores if each.system == "FewShot"
    }


def test_a_run_leaves_a_report_that_loads_nothing(workshop: Workshop) -> None:
    hostile = [{"text": "</pre><script>alert(1)</script> apple", "label": "fruit"}] * 3
    rows = {"train": tiny.classification_rows(24, 1), "test": [*hostile, *tiny.classification_rows(6, 2)]}
    dataset = tiny.publish_dataset(workshop.store, RowFormat.CLASSIFICATION, rows)
    result, found = trained(workshop, "a1", dataset=dataset)
    text = (workshop.store.root / "runs/a1/report.html").read_text()
    (folder,) = (workshop.store.root / "runs/a1/evaluations").iterdir()
    assert text == (folder / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert result.artifact is not None
    for word in (
        result.artifact.digest,
        "MacroF1",
        "FewShot",
        "<polyline",
        "Confusion",
        "tokens/s",
        MARK.decode(),
        COST_MARK.decode(),
    ):
        assert word in text
    assert result.speed == found.speed
    assert found.speed is not None
    assert found.speed.latency_p50 <= found.speed.latency_p95
    assert len(found.confusions) == 3


def test_a_pod_that_comes_second_leaves_the_figures_of_the_first(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = trained(workshop, "a1")
    run = workshop.store.root / "runs/a1"
    outcome = run / "outcome.json"
    said, pages = outcome.read_bytes(), {path: path.read_bytes() for path in run.glob("*") if path.is_file()}
    outcome.unlink()

    def publish_after_the_other(*arguments: Any) -> TrainingResult:
        outcome.write_bytes(said)
        return publish_outcome(*arguments)

    monkeypatch.setattr(recipe, "publish_outcome", publish_after_the_other)
    second, found = trained(workshop, "a1", hyperparameters={"epochs": 2})
    assert (second.reused, second.artifact) == (True, first.artifact)
    assert [each.value for each in found.scores] == [each.value for each in first.evaluation]
    assert len(list((run / "evaluations").iterdir())) == 2
    for name in ("evaluation.json", "report.html"):
        assert (run / name).read_bytes() == pages[run / name]


def test_previous_is_measured_with_its_own_weights(workshop: Workshop) -> None:
    first, found = trained(workshop, "a1", hyperparameters={"epochs": 3})
    reference = runs.reference_to(first)
    wanted = {**WANTED, "baselines": ["ZeroShot", "Previous"], "previous": reference, "previous_base": workshop.base}
    _, second = trained(workshop, "a2", evaluation=wanted)
    values = {(each.metric, each.system): each.value for each in second.scores}
    before = {each.metric: each.value for each in found.scores if each.system == "Tuned"}
    for metric in (Metric.EVAL_LOSS, Metric.ACCURACY):
        assert values[metric, Baseline.PREVIOUS.value] == pytest.approx(before[metric], rel=1e-4)
        assert values[metric, "Tuned"] != values[metric, Baseline.PREVIOUS.value]


def test_a_number_that_is_not_finite_is_left_out_and_said(workshop: Workshop) -> None:
    with workshop.store.workspace(StoredKind.MODEL) as directory:
        tiny.build_tokenizer(directory)
        model = tiny.build_model(directory)
        model.get_input_embeddings().weight.data.mul_(1000)
        model.save_pretrained(str(directory))
        wild = workshop.store.publish(StoredKind.MODEL, directory, {})
    plan = workshop.plan(adapter=None, base=wild, evaluation={"metrics": ["EvalLoss", "Perplexity", "Accuracy"]})
    result = reevaluate(ReevaluationPlan(training=plan, artifact=wild), workshop.store.root)
    assert {each.metric for each in result.evaluation} == {Metric.EVAL_LOSS, Metric.ACCURACY}
    assert "Perplexity of Tuned is left out: it is inf" in runs.evaluation_of(workshop.store).notes


TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: [" fruit", " metal"]
doc_to_target: "{{label}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "tasks"
    directory.mkdir()
    (directory / "colours.yaml").write_text(TASK)
    rows = [{"text": f"there was the {word} again", "label": at % 2} for at, word in enumerate(["pear", "iron"] * 5)]
    (directory / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hidden = directory / "..2026_11_21"  # as a ConfigMap's mount has it
    hidden.mkdir()
    (hidden / "colours.yaml").write_text(TASK)
    monkeypatch.setattr(benchmark, "TASKS_MOUNT", directory)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return directory


@pytest.mark.filterwarnings("ignore")
def test_tasks_of_lm_eval_are_run_and_remembered(workshop: Workshop, tasks: Path) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    wanted = {"metrics": ["Benchmark"], "baselines": ["ZeroShot"], "benchmark": {"tasks": ["colours"]}}
    _, found = trained(workshop, "a1", evaluation=wanted)
    by_system = {each.system: each for each in found.tasks}
    assert {each.rows for each in found.tasks} == {10}
    directory = workshop.store.path(workshop.base)
    with benchmark._workplace(tasks) as place:
        expected: Any = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(directory), device="cpu"),
            tasks=["colours"],
            task_manager=TaskManager(include_path=str(place), include_defaults=False),
            bootstrap_iters=0,
        )
    assert by_system["ZeroShot"].value == pytest.approx(expected["results"]["colours"]["acc,none"])
    assert [each.value for each in found.scores if each.system == "ZeroShot"] == [by_system["ZeroShot"].value]
    _, again = trained(workshop, "a2", evaluation=wanted)
    assert again.recalled == ("ZeroShot",)

    plan = workshop.plan(evaluation={**wanted, "benchmark": {"tasks": ["shapes"]}})
    with pytest.raises(FineTuneError, match="shapes: no YAML file of the ConfigMap defines such a task") as caught:
        benchmark.check(plan.evaluation)
    assert caught.value.reason is FailureReason.INVALID_PLAN
