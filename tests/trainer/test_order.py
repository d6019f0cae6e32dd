"""However many ranks there are, a step sees the same sequences in the same forward passes."""

import pytest

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.training import Hyperparameters, ParallelismPlan
from finetune_trainer.train.batching import plan_batches
from finetune_trainer.train.order import GlobalBatches
from finetune_trainer.train.ranks import Ranks, refuse_too_small_batch
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
        refuse_too_small_batch(plan)
    assert caught.value.reason is FailureReason.INVALID_PLAN
