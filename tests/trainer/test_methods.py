"""Every method end to end: it trains in the right direction, is saved, resumed bit by bit, and used again."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.plans import RowFormat, StoredReference, TrainingPlan
from finetune_contract.results import ArtifactType, TrainingResult
from finetune_store.store import Store
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.pods import read_json
from tests.trainer.runs import (
    difference,
    directory_of,
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
    else:
        assert said.figures["rewards/margins"] > 0
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
    changes = {"adapter": adapter, "hyperparameters": settings, "evaluation": {}}
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
    return run(bench.store, bench.plan("reward", "Reward", hyperparameters={"epochs": 6, "learning_rate": 1e-2}))


def test_a_reward_model_ranks_held_out_pairs(bench: Bench, reward_model: TrainingResult) -> None:
    assert reward_model.artifact is not None
    assert reward_model.artifact.type is ArtifactType.REWARD_MODEL
    assert score(reward_model, "PreferenceAccuracy", "Tuned") > 0.75
    assert score(reward_model, "EvalLoss", "Tuned") < 0.65  # chance is log 2 = 0.693
    config = read_json(directory_of(bench.store, reward_model) / "config.json")
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert "probe.json" not in {path.name for path in directory_of(bench.store, reward_model).iterdir()}
