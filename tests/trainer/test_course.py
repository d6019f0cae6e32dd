from typing import Any

import pytest

from finetune_contract.results import WarningReason
from finetune_contract.training import EarlyStoppingPlan, ValidationPlan
from finetune_trainer.train import course


def log_of(evals: list[float], train: list[float]) -> list[dict[str, Any]]:
    """Ten steps between evaluations; an evaluated step's training loss is logged after its evaluation."""
    entries: list[dict[str, Any]] = []
    for number, (evaluated, loss) in enumerate(zip(evals, train, strict=True), 1):
        entries += [{"step": step, "loss": loss} for step in range(10 * number - 9, 10 * number)]
        entries += [{"step": 10 * number, "eval_loss": evaluated}, {"step": 10 * number, "loss": loss}]
    return entries


FALLING = [1.0, 0.8, 0.6, 0.4, 0.2, 0.1]
# research/training.md, E: a real run on docstrings that overfitted from its fourth epoch on.
REAL = [0.511, 0.193, 0.190, 0.130, 0.134, 0.135]


@pytest.mark.parametrize(
    ("evals", "train", "warned"),
    [
        pytest.param(REAL, FALLING, True, id="a real run"),
        pytest.param([1.0, 0.9, 0.8, 0.9, 0.7, 0.8], FALLING, False, id="it rises once, twice"),
        pytest.param([1.0, 0.9, 0.8, 0.9, 1.0, 1.1], [1.0, 0.8, 0.6, 0.7, 0.8, 0.9], False, id="training rises, too"),
        pytest.param([1.0, 0.9, 0.8, 0.802, 0.804, 0.803], FALLING, False, id="it wobbles where it converged"),
        pytest.param([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], FALLING, False, id="it falls"),
        pytest.param([0.8, 0.9, 1.0, 0.7, 0.6, 0.5], FALLING, True, id="it rose before it fell"),
    ],
)
def test_overfitting_is_a_rise_against_falling_training(evals: list[float], train: list[float], warned: bool) -> None:
    warning = course.overfitting(log_of(evals, train))
    assert (warning is not None) is warned


def test_the_warning_has_its_numbers() -> None:
    warning = course.overfitting(log_of(REAL, FALLING))
    assert warning is not None
    assert warning.reason is WarningReason.OVERFITTING
    assert "from 0.13 (step 40) to 0.135 (step 60) while the training loss fell to 0.1;" in warning.message
    assert len(warning.message) <= 256


@pytest.mark.parametrize(
    ("evals", "patience", "min_delta", "over"),
    [
        pytest.param([1.0, 0.9, 0.8], 1, 0.0, False, id="still better"),
        pytest.param([1.0, 0.9, 0.9], 1, 0.0, True, id="equal is not better"),
        pytest.param([1.0, 0.9, 0.95, 0.91], 3, 0.0, False, id="patient"),
        pytest.param([1.0, 0.9, 0.95, 0.91, 0.92], 3, 0.0, True, id="patience is over"),
        pytest.param([1.0, 0.99, 0.985, 0.982], 2, 0.05, True, id="better by too little"),
        pytest.param([], 1, 0.0, False, id="nothing seen yet"),
    ],
)
def test_early_stopping(evals: list[float], patience: int, min_delta: float, over: bool) -> None:
    log = log_of(evals, FALLING[: len(evals)])
    assert course.is_over(log, EarlyStoppingPlan(patience=patience, min_delta=min_delta)) is over
    assert not course.is_over(log, None)


def test_the_best_step_is_published_only_where_it_is_asked_for() -> None:
    log = log_of(REAL, FALLING)
    assert course.step_to_publish(log, ValidationPlan()) is None
    for plan in (ValidationPlan(keep_best=True), ValidationPlan(early_stopping=EarlyStoppingPlan(patience=2))):
        chosen = course.step_to_publish(log, plan)
        assert chosen is not None
        assert (chosen.step, chosen.loss) == (40, 0.130)


@pytest.mark.parametrize(
    ("shares", "warned"),
    [
        pytest.param([1.0] * 10, True, id="never any difference"),
        pytest.param([1.0] * 9 + [0.9] + [1.0] * 9, False, id="a difference now and then"),
        pytest.param([0.2] * 30, False, id="differences"),
        pytest.param([], False, id="no rewards"),
    ],
)
def test_rewards_that_never_differ_are_named(shares: list[float], warned: bool) -> None:
    log = [{"step": step, "frac_reward_zero_std": share} for step, share in enumerate(shares, 1)]
    warning = course.rewards_without_variance(log)
    assert (warning is not None) is warned
    if warning:
        assert warning.reason is WarningReason.NO_REWARD_VARIANCE
