"""Baselines by name: endpoints, other jobs' artifacts, the original prompt; and reward models. Against real servers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import Metric
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.results import TrainingResult
from finetune_contract.training import ReevaluationPlan, TrainingPlan
from finetune_trainer.data.instructions import INSTRUCTION_FILE, Stripped
from finetune_trainer.evaluate.asking import Endpoint
from finetune_trainer.evaluate.endpoints import conversation
from finetune_trainer.evaluate.main import reevaluate
from finetune_trainer.evaluate.record import Evaluation
from finetune_trainer.evaluate.rewarded import RewardModel
from finetune_trainer.train.workbench import open_workbench
from tests.trainer import runs, tiny
from tests.trainer.answering import Server, answering
from tests.trainer.conftest import Workshop

QUICK = {"epochs": 1}
ROWS = tiny.classification_rows(24, 2)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(Endpoint, "_first_wait", 0.001)
    with answering() as found:
        yield found


def hosted(server: Server, **changes: Any) -> dict[str, Any]:
    return {"name": "hosted", "endpoint": {"url": server.url, "model": "big-1", "retries": 2, **changes}}


def plan_of(workshop: Workshop, *baselines: dict[str, Any], **evaluation: Any) -> TrainingPlan:
    wanted = {"metrics": ["Accuracy"], "named_baselines": baselines, **evaluation}
    return workshop.plan(evaluation=wanted, evaluation_key="k1", hyperparameters=QUICK)


def values(found: Evaluation, metric: Metric) -> dict[str, float]:
    return {each.system: each.value for each in found.scores if each.metric is metric}


def test_an_endpoint_is_asked_once_and_measured_by_its_answers(workshop: Workshop, server: Server) -> None:
    server.answer = lambda number, _: (429, "slow down", {"retry-after": "0.01"}) if number == 1 else (200, "fruit", {})
    plan = plan_of(
        workshop, hosted(server, system_prompt="Say which kind of thing it is."), metrics=["EvalLoss", "Accuracy"]
    )
    result = runs.run(workshop.store, plan)
    found = runs.evaluation_of(workshop.store)
    assert found.failure is None
    share = sum(row["label"] == "fruit" for row in ROWS) / len(ROWS)
    assert values(found, Metric.ACCURACY)["hosted"] == pytest.approx(share, abs=1e-5)
    assert set(values(found, Metric.EVAL_LOSS)) == {"Tuned"}
    assert "EvalLoss of hosted: left out, an endpoint gives answers only" in found.notes
    (use,) = found.endpoints
    assert (use.system, use.requests, use.retries) == ("hosted", len(ROWS) + 1, 1)
    assert server.seen[-1]["messages"][0] == {"role": "system", "content": "Say which kind of thing it is."}
    assert {turns["messages"][1]["content"] for turns in server.seen} == {row["text"] for row in ROWS}

    asked = len(server.seen)
    reevaluate(ReevaluationPlan(training=plan, artifact=runs.reference_to(result)), workshop.store.root)
    assert runs.evaluation_of(workshop.store).recalled == ("hosted",)
    assert len(server.seen) == asked


def test_an_endpoint_that_is_down_loses_nothing_and_only_the_evaluation_is_done_again(
    workshop: Workshop, server: Server
) -> None:
    server.answer = lambda _number, _prompt: (503, "busy", {})
    plan = plan_of(workshop, hosted(server), baselines=["ZeroShot"])
    result = runs.run(workshop.store, plan)
    assert result.artifact is not None
    assert result.evaluation_key == "incomplete"  # no spec asks for this: the operator measures again
    found = runs.evaluation_of(workshop.store)
    assert set(values(found, Metric.ACCURACY)) == {"Tuned", "ZeroShot"}
    assert found.failure is not None
    assert found.failure.reason is FailureReason.EVALUATION_FAILED
    assert "(big-1) left a row without an answer after 2 retries; the last: HTTP 503: busy" in found.failure.message
    assert len(server.seen) < 3 * len(ROWS)  # given up with the first row
    (use,) = found.endpoints
    assert (use.requests, use.retries > 0) == (len(server.seen), True)

    before = files_of(workshop)
    again = ReevaluationPlan(training=plan, artifact=runs.reference_to(result))
    with pytest.raises(FineTuneError, match="HTTP 503") as caught:
        reevaluate(again, workshop.store.root)
    assert caught.value.reason is FailureReason.EVALUATION_FAILED
    server.answer = lambda _number, _prompt: (200, "metal", {})
    measured = reevaluate(again, workshop.store.root)
    assert {score.system for score in measured.evaluation} == {"Tuned", "ZeroShot", "hosted"}
    assert files_of(workshop) == before


def files_of(workshop: Workshop) -> set[Path]:
    """What training leaves: checkpoints, artifacts, attempts, the outcome."""
    root = workshop.store.root
    return {path for path in root.rglob("*") if path.is_file() and not {"evaluations", "baselines"} & set(path.parts)}


@pytest.mark.parametrize("status", [401, 404])
def test_an_endpoint_that_refuses_is_not_asked_again(workshop: Workshop, server: Server, status: int) -> None:
    server.answer = lambda _number, _prompt: (status, "no", {})
    runs.run(workshop.store, plan_of(workshop, hosted(server, concurrency=1)))
    assert len(server.seen) == 1
    failure = runs.evaluation_of(workshop.store).failure
    assert failure is not None
    assert failure.message.startswith("evaluation.namedBaselines[hosted].endpoint")


def test_an_endpoint_that_is_silent_is_not_waited_for(workshop: Workshop, server: Server) -> None:
    runs.run(workshop.store, plan_of(workshop, {**hosted(server), "endpoint": {
        "url": "http://127.0.0.1:9/v1", "model": "m", "retries": 1,
    }}))  # fmt: skip
    failure = runs.evaluation_of(workshop.store).failure
    assert failure is not None
    assert "ConnectError" in failure.message


def test_another_jobs_artifact_is_measured_with_its_own_weights(workshop: Workshop) -> None:
    plan = workshop.plan(evaluation={"metrics": ["EvalLoss", "Accuracy"]}, hyperparameters={"epochs": 3}, run_key="b1")
    first = runs.run(workshop.store, plan)
    other = {"name": "old", "artifact": runs.reference_to(first), "base": workshop.base}
    second = runs.run(workshop.store, plan_of(workshop, other, metrics=["EvalLoss", "Accuracy"]))
    for metric in ("EvalLoss", "Accuracy"):
        assert runs.score(second, metric, "old") == pytest.approx(runs.score(first, metric, "Tuned"), rel=1e-4)
    assert runs.score(second, "EvalLoss", "old") != runs.score(second, "EvalLoss", "Tuned")


def test_another_jobs_artifact_that_is_gone_costs_only_its_own_figures(workshop: Workshop) -> None:
    gone = {"name": "old", "artifact": {"digest": "sha256:" + "0" * 64, "uri": f"{workshop.store.address}/artifacts/0"}}
    result = runs.run(workshop.store, plan_of(workshop, gone))
    assert result.artifact is not None
    assert runs.score(result, "Accuracy", "Tuned") >= 0
    failure = runs.evaluation_of(workshop.store).failure
    assert failure is not None
    assert failure.reason is FailureReason.EVALUATION_FAILED
    assert "spec.evaluation: old: " in failure.message


INSTRUCTION = Stripped(system="You sort things.", start="Say which kind of thing it is: ")


def test_the_original_prompt_has_what_was_cut_off(workshop: Workshop) -> None:
    dataset = tiny.publish_dataset(
        workshop.store,
        RowFormat.CLASSIFICATION,
        {"train": tiny.classification_rows(24, 1), "test": ROWS},
        {INSTRUCTION_FILE: Stripped(start=INSTRUCTION.start).to_json()},
    )
    wanted = {"metrics": ["EvalLoss", "Accuracy"], "baselines": ["ZeroShot", "OriginalPrompt"]}
    result = runs.run(workshop.store, workshop.plan(dataset=dataset, evaluation=wanted, hyperparameters=QUICK))
    prefixed = [{**row, "text": INSTRUCTION.start + row["text"]} for row in ROWS]
    long = tiny.publish_dataset(
        workshop.store, RowFormat.CLASSIFICATION, {"train": tiny.classification_rows(24, 1), "test": prefixed}
    )
    other = runs.run(
        workshop.store, workshop.plan(dataset=long, evaluation=wanted, hyperparameters=QUICK, run_key="b1")
    )
    original = runs.score(result, "EvalLoss", "OriginalPrompt")
    assert original == pytest.approx(runs.score(other, "EvalLoss", "ZeroShot"), rel=1e-4)
    assert original != runs.score(result, "EvalLoss", "ZeroShot")
    assert not [each for each in other.evaluation if each.system == "OriginalPrompt"]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        pytest.param({"text": "tin", "label": "metal"}, [{"role": "user", "content": "tin"}], id="classification"),
        pytest.param({"prompt": "tin", "completion": "x"}, [{"role": "user", "content": "tin"}], id="prompt"),
        pytest.param(
            {"messages": [
                {"role": "system", "content": "s", "weight": None}, {"role": "user", "content": "tin"},
                {"role": "assistant", "content": "metal"}, {"role": "user", "content": "?"},
                {"role": "assistant", "content": "yes"},
            ]},
            [
                {"role": "system", "content": "s"}, {"role": "user", "content": "tin"},
                {"role": "assistant", "content": "metal"}, {"role": "user", "content": "?"},
            ],
            id="messages",
        ),
    ],
)  # fmt: skip
def test_rows_are_conversations(row: dict[str, Any], turns: list[dict[str, str]]) -> None:
    assert conversation(row, None, None) == turns
    said = conversation(row, None, "Be short.")
    assert said[0] == {"role": "system", "content": "Be short."}
    assert [turn["role"] for turn in said].count("system") == 1
    if "messages" not in row:
        assert conversation(row, Stripped(start="What is "), None) == [{"role": "user", "content": "What is tin"}]


def reward_model(workshop: Workshop) -> TrainingResult:
    rows = {"train": tiny.preference_rows(96, 1), "test": tiny.preference_rows(24, 2)}
    dataset = tiny.publish_dataset(workshop.store, RowFormat.PREFERENCE, rows)
    plan = workshop.plan(
        dataset=dataset, method="Reward", run_key="r1", hyperparameters={"epochs": 8},
        evaluation={"metrics": ["PreferenceAccuracy"]},
    )  # fmt: skip
    return runs.run(workshop.store, plan)


def test_a_reward_model_scores_right_answers_over_wrong_ones_and_every_system(workshop: Workshop) -> None:
    made = reward_model(workshop)
    plan = plan_of(
        workshop, metrics=["Accuracy", "RewardScore"], baselines=["ZeroShot"], reward_model=runs.reference_to(made)
    )
    bench = open_workbench(plan, workshop.store)
    model = RewardModel(runs.directory_of(workshop.store, made), bench)
    right = model.scores(ROWS, [row["label"] for row in ROWS])
    wrong = model.scores(ROWS, ["metal" if row["label"] != "metal" else "fruit" for row in ROWS])
    better = sum(good > bad for good, bad in zip(right, wrong, strict=True))
    assert better > len(ROWS) * 3 / 4
    runs.run(workshop.store, plan)
    found = runs.evaluation_of(workshop.store)
    assert set(values(found, Metric.REWARD_SCORE)) == {"Tuned", "ZeroShot"}
    expected = model.scores(ROWS, [row.answers["Tuned"] for row in found.rows])
    assert values(found, Metric.REWARD_SCORE)["Tuned"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_what_was_cut_off_is_recorded_with_the_rows() -> None:
    row = {"messages": [{"role": "user", "content": "tin"}, {"role": "assistant", "content": "metal"}]}
    whole = INSTRUCTION.restored(row)["messages"]
    assert whole[:2] == [
        {"role": "system", "content": "You sort things."},
        {"role": "user", "content": "Say which kind of thing it is: tin"},
    ]
    assert json.loads(INSTRUCTION.to_json()) == {"system": INSTRUCTION.system, "start": INSTRUCTION.start}
