"""However many ranks there are, a step sees the same sequences in the same forward passes."""

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.methods import Method
from finetune_contract.training import Hyperparameters, ParallelismPlan, ShardingStrategy
from finetune_trainer.train.batching import plan_batches
from finetune_trainer.train.order import GlobalBatches
from finetune_trainer.train.ranks import Ranks, refuse_impossible_group
from tests.trainer.conftest import Workshop


def steps_of(sequences: int, size: int, micro: int, ranks: int, epoch: int = 0) -> list[list[list[int]]]:
    """The forward passes of each step of an epoch, rank by rank, blank ones left out; the passes must be in step."""
    settings = Hyperparameters(epochs=1, learning_rate=1, global_batch_size=size, micro_batch_size=micro)
    batches = plan_batches(settings, ranks, 16)
    samplers = [GlobalBatches(sequences, size, batches, Ranks(rank, ranks), seed=3) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    passes = [list(sampler) for sampler in samplers]
    assert {len(mine) for mine in passes} == {len(samplers[0])}, "a rank has passes that the others wait for"
    starts = range(0, len(samplers[0]), batches.accumulation)
    return [
        [each for mine in passes for each in mine[start : start + batches.accumulation] if each != [sequences]]
        for start in starts
    ]


@pytest.mark.parametrize("ranks", [2, 3, 4, 5])
@pytest.mark.parametrize(("sequences", "size", "micro"), [(24, 8, 1), (23, 8, 1), (17, 8, 1), (5, 8, 1), (40, 10, 1)])
def test_every_number_of_ranks_sees_the_same_steps(sequences: int, size: int, micro: int, ranks: int) -> None:
    alone = steps_of(sequences, size, micro, 1)
    assert sorted(index for step in alone for each in step for index in each) == list(range(sequences))
    assert steps_of(sequences, size, micro, ranks) == alone


def test_passes_of_several_sequences_stay_whole() -> None:
    assert steps_of(30, 8, 2, 2) == steps_of(30, 8, 2, 1)


def test_epochs_differ_and_come_again() -> None:
    assert steps_of(24, 8, 1, 2, epoch=1) == steps_of(24, 8, 1, 1, epoch=1) != steps_of(24, 8, 1, 1)


def test_more_ranks_than_sequences_are_refused(workshop: Workshop) -> None:
    plan = workshop.plan(parallelism=ParallelismPlan(nodes=3, processes_per_node=4))
    with pytest.raises(FineTuneError, match=r"globalBatchSize: 8 sequences cannot be divided among 12 ranks") as caught:
        refuse_impossible_group(plan)
    assert caught.value.reason is FailureReason.INVALID_PLAN


@pytest.mark.parametrize(
    ("method", "strategy", "message"),
    [
        ("GRPO", "Auto", "spec.parallelism: GRPO trains in one process; ask for one node"),
        ("Distillation", "DDP", "Distillation trains in one process"),
        ("DPO", "FSDP", r"spec.parallelism.strategy: .* with DPO use Auto or DDP"),
    ],
)
def test_what_several_ranks_cannot_do_is_refused(method: str, strategy: str, message: str, workshop: Workshop) -> None:
    parallelism = ParallelismPlan(nodes=2, strategy=ShardingStrategy(strategy))
    plan = workshop.plan(parallelism=parallelism).model_copy(update={"method": Method(method)})
    with pytest.raises(FineTuneError, match=message) as caught:
        refuse_impossible_group(plan)
    assert caught.value.reason is FailureReason.INVALID_PLAN
    alone = plan.model_copy(update={"parallelism": parallelism.model_copy(update={"nodes": 1})})
    refuse_impossible_group(alone)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(("sequences", "size", "micro"), [(24, 8, 2), (22, 8, 2), (17, 8, 4), (5, 8, 1)])
def test_passes_count_for_their_sequences(sequences: int, size: int, micro: int, ranks: int) -> None:
    settings = Hyperparameters(epochs=1, learning_rate=1, global_batch_size=size, micro_batch_size=micro)
    batches = plan_batches(settings, ranks, 16)
    samplers = [GlobalBatches(sequences, size, batches, Ranks(rank, ranks), seed=3) for rank in range(ranks)]
    passes, steps = [list(sampler) for sampler in samplers], -(-sequences // size)
    told = [[share for step in range(2 * steps) for share in sampler.shares(step)] for sampler in samplers]
    for mine, shares in zip(passes, told, strict=True):
        assert shares[: len(mine)] == shares[len(mine) :], "every epoch is cut alike"
        rest = sequences % size or size
        last = len(mine) - len(samplers[0].shares(steps - 1))
        for at, each in enumerate(mine):
            wanted = 0 if each == [sequences] else len(each)
            assert shares[at] == pytest.approx(wanted / (size if at < last else rest))
    for step in range(steps):
        assert sum(share for sampler in samplers for share in sampler.shares(step)) == pytest.approx(1.0)
