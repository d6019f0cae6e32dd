import time
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.training import LoraPlan
from finetune_trainer.train.adapters import attach
from finetune_trainer.train.meters import Meter, flops_per_token
from tests.trainer import tiny


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_speed_is_the_mean_without_the_first_step_and_without_what_was_no_training(clock: list[float]) -> None:
    meter = Meter(flops_per_token=10.0, peak_flops=1000.0)
    meter.step(5000)
    assert meter.tokens_per_second is None
    assert meter.mfu is None
    clock[0] += 2
    meter.step(100)
    clock[0] += 5
    meter.leave_out(3.0)
    meter.step(100)
    assert meter.tokens_per_second == 200 / 4
    assert meter.mfu == 0.5


def test_without_a_known_peak_there_is_no_utilisation(clock: list[float], tmp_path: Path) -> None:
    meter = Meter.of(tiny.build_model(tmp_path))
    for _ in range(2):
        meter.step(10)
        clock[0] += 1
    assert meter.tokens_per_second == 10.0
    assert meter.mfu is None


def weights(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_flops_follow_what_is_multiplied_and_what_is_trained(tmp_path: Path) -> None:
    tied = tiny.build_model(tmp_path)
    assert flops_per_token(tied) == 6 * weights(tied), "tied embeddings are the head"
    untied = tiny.build_model(tmp_path, tie_word_embeddings=False)
    looked_up = untied.get_input_embeddings().weight.numel()
    assert flops_per_token(untied) == 6 * (weights(untied) - looked_up)
    frozen = weights(tied)
    adapted = attach(tied, LoraPlan(rank=4, alpha=8, dropout=0.0), start=None)
    assert flops_per_token(adapted) == 4 * frozen + 6 * (weights(adapted) - frozen)
