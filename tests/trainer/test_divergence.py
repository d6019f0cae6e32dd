import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from finetune_trainer.train.divergence import LossCurve

CURVES: dict[str, list[float]] = json.loads((Path(__file__).parent / "loss_curves.json").read_text())
"""Losses that real runs of the tiny models logged, step by step."""


def diverged_at(losses: Iterable[float], curve: LossCurve | None = None) -> int | None:
    curve = curve or LossCurve()
    return next((step for step, loss in enumerate(losses, 1) if curve.add(loss)), None)


@pytest.mark.parametrize("name", [name for name in CURVES if not name.startswith("diverged")])
def test_recorded_runs_that_learn_are_left_alone(name: str) -> None:
    assert len(CURVES[name]) >= 90
    assert diverged_at(CURVES[name]) is None


@pytest.mark.parametrize("name", [name for name in CURVES if name.startswith("diverged")])
def test_recorded_runs_that_diverged_are_noticed_within_forty_steps(name: str) -> None:
    step = diverged_at(CURVES[name])
    assert step is not None
    assert step <= 40


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0])
def test_noise_is_no_divergence_and_its_double_is(sigma: float) -> None:
    for seed in range(10):
        noise = random.Random(seed)
        losses = [1.5 * noise.lognormvariate(0, sigma) for _ in range(600)]
        curve = LossCurve()
        assert diverged_at(losses, curve) is None, seed
        # Far above what the noise explains, all losses leave.
        assert diverged_at((each + 40 * sigma for each in losses[:40]), curve) is not None, seed


def test_losses_that_are_either_good_or_bad_are_left_alone() -> None:
    noise = random.Random(0)
    for _ in range(10):
        losses = [noise.expovariate(0.4) if noise.random() < 0.3 else 0.02 * noise.random() for _ in range(600)]
        assert diverged_at(losses) is None


def test_single_spikes_are_left_alone() -> None:
    assert diverged_at([1.0, 1.1, 0.9, 50.0] * 100) is None


def test_an_attempt_that_resumes_remembers() -> None:
    calm, wild = [1.0, 1.1, 0.9, 1.05] * 10, [8.0] * 17
    assert diverged_at(wild, LossCurve(calm)) == 17
    assert diverged_at(wild[:9], LossCurve([*calm, *wild[:8]])) == 9
    assert diverged_at([9.0, *wild]) is None, "a run that was never better"


def test_the_message_has_the_numbers() -> None:
    curve = LossCurve([1.2, *[1.0, 1.1, 0.9, 1.05] * 10])
    said = [curve.add(8.0) for _ in range(17)][-1]
    assert said is not None
    assert said == "17 of the last 20 logged losses are above 1.915, their median is 8; the lowest was 1.025"
