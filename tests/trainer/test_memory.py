"""Out of memory: its names, and the micro batch that fits, found with a model that really raises torch's error."""

import errno
from collections.abc import Callable
from typing import Any

import pytest
import torch

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.results import TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_trainer.stop import Stop
from finetune_trainer.train.batching import BatchPlan
from finetune_trainer.train.failures import named
from finetune_trainer.train.memory import out_of_memory
from finetune_trainer.train.rehearsal import candidates
from tests.trainer.conftest import Workshop
from tests.trainer.runs import run, weights_of

GPU, HOST = FailureReason.GPU_OUT_OF_MEMORY, FailureReason.HOST_OUT_OF_MEMORY


def from_another(inner: Exception) -> Exception:
    """As a library wraps it."""
    try:
        try:
            raise inner
        except Exception as error:
            raise ValueError("a pass failed") from error
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"), GPU),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), GPU),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), GPU),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), GPU),
        (RuntimeError("Triton Error [CUDA]: out of memory"), GPU),
        (RuntimeError("HIP out of memory. Tried to allocate"), GPU),
        (RuntimeError("NCCL error: unhandled cuda error\nCuda failure 2 'out of memory'"), GPU),
        (from_another(torch.OutOfMemoryError("CUDA out of memory.")), GPU),
        (MemoryError(), HOST),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), HOST),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), HOST),
        (RuntimeError("std::bad_alloc"), HOST),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (ValueError("the user ran out of memory cards"), None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_out_of_memory_is_recognised_whatever_raises_it(error: Exception, reason: FailureReason | None) -> None:
    assert out_of_memory(error) is reason


def test_a_real_host_allocation_that_fails_is_named_with_its_evidence() -> None:
    with (
        pytest.raises(FineTuneError, match=r"^peak \d+\.\d GiB, free \d+\.\d GiB of \d+\.\d GiB\n") as caught,
        named(Stop()),
    ):
        torch.empty(2**50)
    assert caught.value.reason is HOST


@pytest.mark.parametrize(
    ("estimate", "room", "expected"),
    [
        pytest.param(
            BatchPlan(2, 6), 4, [(6, 2), (4, 3), (3, 4), (2, 6), (1, 12)], id="divisors, from four times it down"
        ),
        pytest.param(BatchPlan(1, 7), 4, [(1, 7)], id="a prime"),
        pytest.param(BatchPlan(8, 1), 4, [(8, 1), (4, 2), (2, 4), (1, 8)], id="never more than the batch"),
    ],
)
def test_every_candidate_has_the_global_batch(estimate: BatchPlan, room: int, expected: list[tuple[int, int]]) -> None:
    found = candidates(estimate, room)
    assert [(plan.micro, plan.accumulation) for plan in found] == expected
    assert {plan.micro * plan.accumulation for plan in found} == {estimate.micro * estimate.accumulation}


@pytest.fixture
def memory_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """A device for so many tokens per forward pass; answers the list of what was asked of it."""
    from transformers import LlamaModel

    forward = LlamaModel.forward

    def limit(tokens: int) -> list[int]:
        asked: list[int] = []

        def allocate(self: Any, *args: Any, **inputs: Any) -> Any:
            asked.append(inputs["input_ids"].numel())
            if asked[-1] > tokens:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {asked[-1]} tokens")
            return forward(self, *args, **inputs)

        monkeypatch.setattr(LlamaModel, "forward", allocate)
        return asked

    return limit


def train(workshop: Workshop, plan: TrainingPlan) -> tuple[TrainingResult, dict[str, torch.Tensor]]:
    result = run(workshop.store, plan)
    return result, weights_of(workshop.store, result)


def plan_of(workshop: Workshop, run_key: str, **settings: Any) -> TrainingPlan:
    adapter = {"rank": 4, "alpha": 8, "dropout": 0.2}  # dropout draws from the random state
    settings = {"packing": True, "global_batch_size": 4, "epochs": 4, "max_length": 256, **settings}
    return workshop.plan(run_key=run_key, adapter=adapter, hyperparameters=settings)


def test_the_largest_micro_batch_that_fits_is_found_and_leaves_no_trace(
    workshop: Workshop, memory_of: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, expected = train(workshop, plan_of(workshop, "asked", micro_batch_size=2))
    monkeypatch.setattr("finetune_trainer.train.fit.cuts", lambda _, estimate, *__: candidates(estimate, 1))
    tried = memory_of(2 * 256)
    found, weights = train(workshop, plan_of(workshop, "found"))
    assert found.micro_batch_size == asked.micro_batch_size == 2
    assert found.step == asked.step
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert tried[0] > 2 * 256 >= max(tried[1:]), "one trial failed, and nothing after it"


def test_what_cannot_fit_at_all_fails_before_the_first_step_with_evidence(
    workshop: Workshop, memory_of: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.train.fit.cuts", lambda _, estimate, *__: candidates(estimate, 1))
    memory_of(100)
    with pytest.raises(FineTuneError, match=r"not even one sequence of 2\d\d tokens fits: peak .* free") as caught:
        train(workshop, plan_of(workshop, "none"))
    assert caught.value.reason is GPU
    assert not list((workshop.store.root / "runs" / "none" / "checkpoints").glob("*/*"))
