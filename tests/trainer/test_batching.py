from typing import Any

import pytest

from finetune_contract.training import Hyperparameters
from finetune_trainer.train.batching import BatchPlan, most_on_cpu, most_on_gpu, plan_batches


def settings(size: int, micro: int | None = None) -> Hyperparameters:
    return Hyperparameters(epochs=1, learning_rate=1e-3, global_batch_size=size, micro_batch_size=micro)


@pytest.mark.parametrize(
    ("size", "micro", "ranks", "most", "expected"),
    [
        pytest.param(64, None, 1, 16, BatchPlan(16, 4), id="automatic"),
        pytest.param(12, None, 1, 8, BatchPlan(6, 2), id="largest divisor that fits"),
        pytest.param(7, None, 1, 4, BatchPlan(1, 7), id="a prime"),
        pytest.param(64, 8, 1, 2, BatchPlan(8, 8), id="as asked, whatever fits"),
        pytest.param(64, 48, 1, 2, BatchPlan(32, 2), id="asked for what does not divide"),
        pytest.param(64, None, 4, 16, BatchPlan(16, 1), id="four processes"),
        pytest.param(2, None, 1, 16, BatchPlan(2, 1), id="never more than the batch"),
    ],
)
def test_the_global_batch_is_kept(size: int, micro: int | None, ranks: int, most: int, expected: BatchPlan) -> None:
    batches = plan_batches(settings(size, micro), ranks, most)
    assert batches == expected
    assert batches.micro * batches.accumulation * ranks == size


@pytest.mark.parametrize(
    ("size", "ranks", "expected"),
    [(10, 4, BatchPlan(2, 2)), (7, 2, BatchPlan(1, 4)), (6, 5, BatchPlan(2, 1)), (5, 4, BatchPlan(1, 2))],
)
def test_ranks_that_do_not_divide_have_passes_for_all(size: int, ranks: int, expected: BatchPlan) -> None:
    batches = plan_batches(settings(size), ranks, 16)
    assert batches == expected
    assert size % batches.micro == 0
    assert batches.micro * batches.accumulation * ranks >= size


@pytest.mark.parametrize(("length", "expected"), [(64, 16), (1024, 4), (8192, 1)])
def test_cpu_batches_stay_near_the_caches(length: int, expected: int) -> None:
    assert most_on_cpu(length) == expected


def test_a_gpu_takes_more_when_layers_are_recomputed() -> None:
    def most(**changes: Any) -> int:
        llama_8b = {"hidden": 4096, "layers": 32, "vocabulary": 128_256, "free_bytes": 60 * 2**30}
        return most_on_gpu(2048, **{**llama_8b, **changes})

    assert most(recomputes=True) > most(recomputes=False) >= 1
    assert most(recomputes=False, free_bytes=1) == 1
