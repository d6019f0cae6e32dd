"""Every method end to end: it trains in the right direction, is saved, resumed bit by bit, and used again."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import RewardPlan
from finetune_contract.results import ArtifactType, TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.checkpoints import Checkpoints
from finetune_store.store import Store
from finetune_trainer.evaluate import subject
from finetune_trainer.evaluate.generate import Answer, greedy_answers
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.pods import read_json
from tests.trainer.runs import (
    difference,
    directory_of,
    reference_to,
    run,
    run_and_watch,
    run_interrupted,
    score,
    weights_of,
)

EVALUATION = {"metrics": ["EvalLoss", "PreferenceAccuracy"], "baselines": ["ZeroShot"]}


class Bench:
    """A store of this module's own: runs have keys of their own in it."""

    def __init__(self, origin: Workshop, root: Path) -> None:
        shutil.copytree(origin.store.root, root)
        self.store = Store(root, tiny.CLAIM)
        self.base = origin.base
        pairs = {"train": tiny.preference_rows(64, 1), "test": tiny.preference_rows(32, 2)}
        self.pairs = tiny.publish_dataset(self.store, RowFormat.PREFERENCE, pairs)
        self.marked = tiny.publish_dataset(
            self.store,
            RowFormat.UNPAIRED_PREFERENCE,
            {
                split: [
                    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
                    for row in rows
                    for side in ("chosen", "rejected")
                ]
                for split, rows in pairs.items()
            },
        )

        prompts = [{"prompt": row["prompt"], "answer": ""} for row in pairs["train"][:32]]
        self.asked = tiny.publish_dataset(self.store, RowFormat.PROMPTS, {"train": prompts, "test": prompts[:16]})
        self.labelled = origin.classification

    def plan(self, key: str, method: str, dataset: StoredReference | None = None, **changes: Any) -> TrainingPlan:
        settings = {"epochs": 3, "learning_rate": 5e-3, **changes.pop("hyperparameters", {})}
        adapter = changes.pop("adapter", {"rank": 8, "alpha": 16, "dropout": 0})
        document = {"evaluation": EVALUATION, **changes, "adapter": adapter, "hyperparameters": settings}
        return tiny.make_plan(self.base, dataset or self.pairs, run_key=key, method=method, **document)


@pytest.fixture(scope="module")
def bench(origin: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(origin, tmp_path_factory.mktemp("methods") / "store")


# --- preferences


@pytest.mark.parametrize("method", ["DPO", "ORPO", "SimPO", "KTO"])
def test_the_better_answer_becomes_likelier_than_the_worse(bench: Bench, method: str) -> None:
    result, said = run_and_watch(bench.store, bench.plan(f"prefers-{method}", method))
    tuned = score(result, "PreferenceAccuracy", "Tuned")
    assert tuned > score(result, "PreferenceAccuracy", "ZeroShot")
    assert tuned > 0.7
    assert result.artifact is not None
    assert result.artifact.type is ArtifactType.ADAPTER
    assert result.supervised_tokens > 0
    assert "probe.json" in {path.name for path in directory_of(bench.store, result).iterdir()}
    if method == "KTO":
        assert said.figures["kl"] >= 0
    elif method == "ORPO":
        # Most of its loss is that of the better answer alone: the last batch's margin may still be none.
        assert {"rewards/margins", "rewards/accuracies"} <= said.figures.keys()
    else:
        assert said.figures["rewards/accuracies"] > 0.5


def test_kto_learns_from_rows_that_are_marked_one_by_one(bench: Bench) -> None:
    settings = {"epochs": 2}
    paired = run(bench.store, bench.plan("kto-pairs", "KTO", hyperparameters=settings, evaluation={}))
    marked = run(bench.store, bench.plan("kto-marked", "KTO", bench.marked, hyperparameters=settings))
    assert marked.total_steps == paired.total_steps
    assert score(marked, "EvalLoss", "Tuned") < score(marked, "EvalLoss", "ZeroShot")


@pytest.mark.parametrize(
    ("method", "adapter"),
    [
        ("DPO", {"rank": 4, "alpha": 8, "dropout": 0}),
        ("DPO", {"rank": 4, "alpha": 8, "dropout": 0, "variant": "PiSSA"}),
        ("DPO", None),
        ("ORPO", {"rank": 4, "alpha": 8, "dropout": 0}),
        ("KTO", {"rank": 4, "alpha": 8, "dropout": 0, "variant": "QLoRA"}),
        ("Reward", {"rank": 4, "alpha": 8, "dropout": 0}),
    ],
    ids=lambda value: value if isinstance(value, str) else (value or {"variant": "full"}).get("variant", "LoRA"),
)
def test_a_resumed_run_is_equal_bit_by_bit(bench: Bench, method: str, adapter: dict[str, Any] | None) -> None:
    name = f"{method}-{(adapter or {}).get('variant', 'LoRA' if adapter else 'full')}"
    settings = {"epochs": 0.75, "learning_rate": 1e-3}
    changes: dict[str, Any] = {"adapter": adapter, "hyperparameters": settings, "evaluation": {}}
    calm = run(bench.store, bench.plan(f"calm-{name}", method, **changes))
    resumed = run_interrupted(bench.store, bench.plan(f"stopped-{name}", method, **changes), step=3)
    assert difference(weights_of(bench.store, calm), weights_of(bench.store, resumed)) == 0.0


def test_rows_beyond_the_limit_are_refused_before_the_first_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.train.fit._train", None)
    with pytest.raises(
        FineTuneError, match=r"maxLength: 20 tokens would cut \d+ of \d+ tokens .* in \d+ answers"
    ) as caught:
        run(bench.store, bench.plan("cut", "DPO", hyperparameters={"max_length": 20}))
    assert caught.value.reason is FailureReason.DATA_TRUNCATED


def test_what_may_be_cut_is_cut_and_counted(bench: Bench) -> None:
    settings = {"max_length": 40, "epochs": 0.25}
    result = run(bench.store, bench.plan("short", "DPO", hyperparameters=settings, truncated_share=1.0, evaluation={}))
    assert result.truncated_rows > 0
    assert result.truncated_tokens > 0


@pytest.mark.parametrize(
    ("method", "rows", "message"),
    [
        ("SFT", "pairs", "SFT needs Messages or PromptCompletion or Classification rows; the dataset has Preference"),
        ("DPO", "marked", "DPO needs Preference rows; the dataset has UnpairedPreference rows: use method KTO"),
    ],
)
def test_rows_of_another_method_are_refused_by_name(bench: Bench, method: str, rows: str, message: str) -> None:
    with pytest.raises(FineTuneError, match=message) as caught:
        run(bench.store, bench.plan(f"refused-{method}", method, getattr(bench, rows)))
    assert caught.value.reason is FailureReason.INVALID_PLAN


def test_kto_needs_both_good_and_bad_answers(bench: Bench) -> None:
    rows = [{"prompt": "a", "completion": "b", "label": True}] * 4
    dataset = tiny.publish_dataset(bench.store, RowFormat.UNPAIRED_PREFERENCE, {"train": rows})
    with pytest.raises(FineTuneError, match="all 4 rows are marked as good") as caught:
        run(bench.store, bench.plan("one-sided", "KTO", dataset))
    assert caught.value.reason is FailureReason.DATASET_INVALID


def test_a_loss_that_is_no_number_is_a_named_failure(bench: Bench) -> None:
    with pytest.raises(FineTuneError) as caught:
        run(bench.store, bench.plan("diverged", "DPO", hyperparameters={"learning_rate": 1e25}))
    assert caught.value.reason is FailureReason.NON_FINITE_LOSS


# --- rewards


@pytest.fixture(scope="module")
def reward_model(bench: Bench) -> TrainingResult:
    settings = {"epochs": 4, "learning_rate": 1e-3}
    return run(bench.store, bench.plan("reward", "Reward", adapter=None, hyperparameters=settings))


def test_a_reward_model_ranks_held_out_pairs(bench: Bench, reward_model: TrainingResult) -> None:
    assert reward_model.artifact is not None
    assert reward_model.artifact.type is ArtifactType.REWARD_MODEL
    assert score(reward_model, "PreferenceAccuracy", "Tuned") > 0.75
    assert score(reward_model, "EvalLoss", "Tuned") < 0.65  # chance is log 2 = 0.693
    config = read_json(directory_of(bench.store, reward_model) / "config.json")
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert "probe.json" not in {path.name for path in directory_of(bench.store, reward_model).iterdir()}


# --- answers that are given while training


def rewarded(rewards: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {"rewards": rewards, "generations": 4, "max_completion_length": 8, **changes}


MEASURED = {"metrics": ["EvalLoss", "MeanReward"], "baselines": ["ZeroShot"], "max_new_tokens": 8}
VOWEL = {"function": "Regex", "pattern": "e"}
LENGTH = {"function": "Length", "min_tokens": 0, "max_tokens": 4}


def logged(store: Store, key: str, name: str) -> list[float]:
    """A figure of every step."""
    checkpoint = Checkpoints(store, key, "reader", 2).newest()
    assert checkpoint is not None
    return [entry[name] for entry in read_json(checkpoint[1] / "trainer_state.json")["log_history"] if name in entry]


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_the_reward_rises(bench: Bench, method: str) -> None:
    settings = {"epochs": 3, "global_batch_size": 16, "learning_rate": 1e-2}
    plan = bench.plan(
        f"rises-{method}", method, bench.asked, online=rewarded([VOWEL]), hyperparameters=settings, evaluation=MEASURED
    )
    result, said = run_and_watch(bench.store, plan)
    rewards = logged(bench.store, plan.run_key, "reward")
    assert result.total_steps == len(rewards) == 24
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.2
    assert said.figures["reward"] == rewards[-1]
    # The prompts have no answers, so that there is no EvalLoss.
    assert {each.metric for each in result.evaluation} == {"MeanReward"}
    assert score(result, "MeanReward", "Tuned") > score(result, "MeanReward", "ZeroShot")
    assert 2.8 < said.epoch <= 3


def test_answers_that_other_metrics_ask_for_are_rewarded_up_to_the_length_that_training_knows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(model: Any, prompts: list[list[int]], *rest: Any, **more: Any) -> list[Answer]:
        asked.append(len(prompts))
        return greedy_answers(model, prompts, *rest, **more)

    monkeypatch.setattr(subject, "greedy_answers", counted)
    wanted = {"metrics": ["MeanReward", "RegexMatch"], "pattern": r"\S+( \S+){4}", "max_new_tokens": 8}
    online, settings = rewarded([LENGTH], max_completion_length=4), {"epochs": 0.25, "global_batch_size": 16}
    plan = bench.plan("shared", "GRPO", bench.asked, online=online, hyperparameters=settings, evaluation=wanted)
    result = run(bench.store, plan)
    assert score(result, "RegexMatch", "Tuned") > 0  # longer than what the reward allows
    assert score(result, "MeanReward", "Tuned") == 1
    assert [count for count in asked if count > 1] == [16]  # others are latencies


def test_answers_are_rewarded_by_the_model_of_a_reward_job(bench: Bench, reward_model: TrainingResult) -> None:
    rewards: list[dict[str, Any]] = [{"model": reference_to(reward_model).model_dump()}, {**LENGTH, "weight": 0.5}]
    settings = {"epochs": 0.25, "global_batch_size": 16}
    plan = bench.plan("judged", "GRPO", bench.asked, online=rewarded(rewards), hyperparameters=settings)
    result, _ = run_and_watch(bench.store, plan)
    assert logged(bench.store, "judged", "rewards/reward-0/mean") != [0.0] * result.total_steps
    assert result.artifact is not None
    assert result.artifact.type is ArtifactType.ADAPTER


@pytest.mark.parametrize("method", ["GRPO", "RLOO", "Distillation"])
def test_a_resumed_run_gives_the_same_answers(bench: Bench, method: str) -> None:
    own = {"distillation": {"teacher": bench.base, "max_completion_length": 8}}
    if method != "Distillation":
        own = {"online": rewarded([VOWEL], beta=0.05)}
    settings = {"epochs": 6 if method == "Distillation" else 2, "global_batch_size": 32, "learning_rate": 1e-3}
    changes = {"hyperparameters": settings, "evaluation": {}, **own}
    calm = run(bench.store, bench.plan(f"calm-{method}", method, bench.asked, **changes))
    resumed = run_interrupted(bench.store, bench.plan(f"stopped-{method}", method, bench.asked, **changes), step=3)
    assert difference(weights_of(bench.store, calm), weights_of(bench.store, resumed)) == 0.0


def test_a_student_comes_nearer_to_its_teacher(bench: Bench) -> None:
    settings = {"epochs": 8, "learning_rate": 5e-3}
    teacher = run(bench.store, bench.plan("teacher", "SFT", bench.labelled, hyperparameters=settings))
    assert teacher.artifact is not None
    plan = bench.plan(
        "student",
        "Distillation",
        bench.labelled,
        distillation={
            "teacher": bench.base,
            "teacher_adapter": reference_to(teacher),
            "max_completion_length": 6,
            "beta": 0.0,
        },
        hyperparameters={"epochs": 4},
        evaluation={"metrics": ["EvalLoss"], "baselines": ["ZeroShot"]},
    )
    student = run(bench.store, plan)
    assert score(student, "EvalLoss", "Tuned") < 0.7 * score(student, "EvalLoss", "ZeroShot")


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        pytest.param(
            {"online": rewarded([{"function": "ExactMatch"}])}, FailureReason.DATASET_INVALID,
            "32 of 32 rows have no answer", id="no answers",
        ),
        pytest.param(
            {"online": rewarded([{"function": "Regex", "pattern": "("}])}, FailureReason.INVALID_PLAN,
            r"rewards\[0\]\.regex\.pattern", id="pattern",
        ),
        pytest.param(
            {"online": rewarded([{"function": "JSONSchema", "json_schema": '{"type": "nothing"}'}])},
            FailureReason.INVALID_PLAN, r"rewards\[0\]\.jsonSchema\.schema", id="schema",
        ),
        pytest.param(
            {"online": rewarded([LENGTH], generations=3)}, FailureReason.INVALID_PLAN, "groups of 3", id="groups"
        ),
        pytest.param(
            {"online": rewarded([LENGTH], max_completion_length=250)}, FailureReason.DATA_TRUNCATED,
            "maxCompletionLength is 250", id="no room",
        ),
    ],
)  # fmt: skip
def test_rewards_that_cannot_work_are_refused(
    bench: Bench, changes: dict[str, Any], reason: FailureReason, message: str
) -> None:
    with pytest.raises(FineTuneError, match=message) as caught:
        run(bench.store, bench.plan("refused", "GRPO", bench.asked, **changes))
    assert caught.value.reason is reason


def test_a_reward_that_throws_is_named_with_the_answer(bench: Bench) -> None:
    """The schema is one, but refers to a part that is not there: that shows when the first JSON answer is judged."""
    from finetune_trainer.train.model import Device
    from finetune_trainer.train.online import as_function
    from finetune_trainer.train.rewards import judges_of

    plan = RewardPlan.model_validate({"function": "JSONSchema", "json_schema": '{"$ref": "#/nowhere"}'})
    judged = as_function(2, judges_of([plan], bench.store, None, Device("cpu"))[0])
    with pytest.raises(FineTuneError, match=r"rewards\[2\]: raised .*nowhere.* of 2 answers was 'no JSON'") as caught:
        judged(completions=["no JSON", "{}"], completion_ids=[[1], [2]], ids=[[1], [1]], answer=["", ""])
    assert caught.value.reason is FailureReason.REWARD_FAILED


@pytest.mark.parametrize(
    ("reward", "answer", "wanted"),
    [
        ({"function": "ExactMatch"}, " 4 ", 1.0),
        ({"function": "ExactMatch"}, "5", 0.0),
        ({"function": "Regex", "pattern": "^[0-9]$"}, "4", 1.0),
        ({"function": "Regex", "pattern": "^[0-9]$"}, "four", 0.0),
        ({"function": "JSONSchema", "json_schema": '{"type": "object", "required": ["a"]}'}, '{"a": 1}', 1.0),
        ({"function": "JSONSchema", "json_schema": '{"type": "object", "required": ["a"]}'}, '{"b": 1}', 0.0),
        ({"function": "JSONSchema", "json_schema": '{"type": "object"}'}, "not JSON", 0.0),
        ({"function": "Length", "min_tokens": 2, "max_tokens": 3}, "4", 0.0),
    ],
)
def test_declared_rewards(bench: Bench, reward: dict[str, Any], answer: str, wanted: float) -> None:
    from finetune_trainer.train.model import Device
    from finetune_trainer.train.rewards import judges_of

    (judge,) = judges_of([RewardPlan.model_validate(reward)], bench.store, None, Device("cpu"))
    assert judge([answer], [[1]], [[7]], ["4"]) == [wanted]
