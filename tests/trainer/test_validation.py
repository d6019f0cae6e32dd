"""Looking at validation rows while real runs train: what is decided, and that looking changes nothing."""

import signal
from typing import Any

import pytest
import torch

from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.results import TrainingResult, WarningReason
from finetune_contract.training import TrainingPlan
from finetune_store.checkpoints import step_of
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.pods import EVERY_STEP, Pod
from tests.trainer.runs import run, weights_of


@pytest.fixture(scope="module")
def held(origin: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Few training rows, so that they are learnt by heart, and validation rows; `text` is replaced."""
    held = origin.copied(tmp_path_factory.mktemp("held") / "store")
    splits = {"train": tiny.text_rows(16, 1), "validation": tiny.text_rows(24, 3)}
    return held._replace(text=tiny.publish_dataset(held.store, RowFormat.TEXT, splits))


def plan_of(held: Workshop, run_key: str, validation: dict[str, Any], **changes: Any) -> TrainingPlan:
    """About 100 steps of a whole model; overfits from step 50 on."""
    settings = {"epochs": 20, "global_batch_size": 1, "learning_rate": 5e-3, **changes.pop("hyperparameters", {})}
    return held.text_plan(run_key=run_key, validation=validation, hyperparameters=settings, **changes)


def train(held: Workshop, plan: TrainingPlan) -> tuple[TrainingResult, dict[str, torch.Tensor]]:
    result = run(held.store, plan)
    return result, weights_of(held.store, result)


def test_looking_changes_no_weight_and_says_that_it_overfits(held: Workshop) -> None:
    adapter = {"rank": 4, "alpha": 8, "dropout": 0.2}  # dropout draws from the random state
    blind, never = train(held, plan_of(held, "blind", {"max_rows": 0}, adapter=adapter))
    seeing, looked = train(held, plan_of(held, "seeing", {"interval_steps": 7}, adapter=adapter))
    assert all(torch.equal(never[name], looked[name]) for name in never)
    assert blind.artifact == seeing.artifact
    assert blind.best_eval_loss is None
    assert seeing.best_eval_loss is not None
    assert "Validating" in {timing.stage for timing in seeing.timings}


@pytest.fixture(scope="module")
def kept(held: Workshop) -> tuple[TrainingResult, dict[str, torch.Tensor]]:
    return train(held, plan_of(held, "kept", {"interval_steps": 10, "keep_best": True}))


def test_the_best_weights_are_published_although_training_went_on(
    held: Workshop, kept: tuple[TrainingResult, dict[str, torch.Tensor]]
) -> None:
    result, published = kept
    assert result.best_step is not None
    assert 10 <= result.best_step < result.step == result.total_steps
    assert [warning.reason for warning in result.warnings] == [WarningReason.OVERFITTING]
    last, final = train(held, plan_of(held, "last", {"interval_steps": 10}))
    assert last.best_step is None
    assert last.best_eval_loss == result.best_eval_loss
    assert not torch.equal(published["model.norm.weight"], final["model.norm.weight"])
    settings = {"scheduler": "constant"}
    until, at_best = train(
        held, plan_of(held, "constant", {"interval_steps": 10, "keep_best": True}, hyperparameters=settings)
    )
    assert until.best_step is not None
    # The same run, ended at that step, ends with those weights.
    epochs = 20 * until.best_step / until.total_steps
    short, there = train(held, plan_of(held, "short", {"max_rows": 0}, hyperparameters={**settings, "epochs": epochs}))
    assert short.step == until.best_step
    assert all(torch.equal(there[name], at_best[name]) for name in there)


def test_early_stopping_ends_the_run_with_the_best_weights(
    held: Workshop, kept: tuple[TrainingResult, dict[str, torch.Tensor]]
) -> None:
    validation = {"interval_steps": 10, "early_stopping": {"patience": 2}}
    result, _ = train(held, plan_of(held, "early", validation))
    assert result.best_step == kept[0].best_step
    assert result.best_step is not None
    assert result.step == result.best_step + 20 < result.total_steps
    assert result.artifact == kept[0].artifact


def test_killed_after_its_best_step_it_still_publishes_that(
    held: Workshop, kept: tuple[TrainingResult, dict[str, torch.Tensor]]
) -> None:
    best = kept[0].best_step
    assert best is not None
    plan = plan_of(held, "killed", {"interval_steps": 10, "keep_best": True}, checkpoints=EVERY_STEP)
    pod = Pod(held.store, plan, "killed")
    pod.wait_until(lambda: pod.sealed_step() >= best + 5)
    pod.signal(signal.SIGKILL)
    assert pod.exit_code() == -signal.SIGKILL
    resumed = Pod(held.store, plan.model_copy(update={"attempt": 2}), "resumed")
    assert resumed.exit_code() == 0
    assert resumed.result().resumed_from_step is not None
    assert resumed.result().best_step == best
    assert resumed.result().artifact == kept[0].artifact


@pytest.mark.parametrize("others_verify", [True, False], ids=["next best", "newest"])
def test_a_damaged_best_checkpoint_makes_way_for_the_next(
    held: Workshop, kept: tuple[TrainingResult, dict[str, torch.Tensor]], others_verify: bool
) -> None:
    plan = plan_of(
        held, f"damaged-{others_verify}", {"interval_steps": 10, "keep_best": True}, checkpoints={"keep": 10}
    )
    first = train(held, plan)[0]
    run_directory = held.store.root / "runs" / plan.run_key
    (run_directory / "outcome.json").unlink()
    (last, *others) = sorted(run_directory.glob("checkpoints/*/checkpoint-*"), key=step_of, reverse=True)
    best = next(path for path in others if step_of(path) == first.best_step)
    for path in [best] if others_verify else others:
        (path / "trainer_state.json").write_text("{}")
    result = train(held, plan.model_copy(update={"attempt": 2}))[0]
    assert result.best_step not in (None, first.best_step)
    assert others_verify or result.best_step == step_of(last)
    (lost,) = [warning for warning in result.warnings if warning.reason is WarningReason.BEST_CHECKPOINT_LOST]
    assert f"the checkpoint of step {first.best_step}, the best" in lost.message


def test_without_validation_rows_the_best_step_is_refused_before_the_first(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.train.fit._train", None)
    with pytest.raises(FineTuneError, match=r"spec\.split\.validation of the Dataset") as caught:
        train(workshop, workshop.plan(validation={"keep_best": True}))
    assert caught.value.reason is FailureReason.DATASET_INVALID


def test_a_run_that_diverges_is_named(held: Workshop) -> None:
    learnt, _ = train(held, plan_of(held, "learnt", {"max_rows": 0}))
    assert learnt.artifact is not None
    base = {"digest": learnt.artifact.digest, "uri": learnt.artifact.uri}
    settings = {"learning_rate": 1.0, "warmup_steps": 5, "scheduler": "constant_with_warmup"}
    plan = plan_of(
        held, "wild", {"max_rows": 0}, hyperparameters=settings, base=base, checkpoints={"interval_steps": 5}
    )
    with pytest.raises(FineTuneError, match=r"step 2\d: 1[7-9] of the last 20 logged losses are above") as caught:
        train(held, plan)
    assert caught.value.reason is FailureReason.LOSS_DIVERGED
    saved = sorted((held.store.root / "runs" / "wild" / "checkpoints").glob("*/checkpoint-*"))
    assert [path.name for path in saved] == ["checkpoint-15", "checkpoint-20"], (
        "every five steps, none of the failed one"
    )
