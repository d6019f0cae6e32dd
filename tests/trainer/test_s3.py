"""Training whose store is in S3: each pod has its own disk, and what one has uploaded is what the next goes on from."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.storage import S3Location
from finetune_contract.training import TrainingPlan
from finetune_store.opening import open_checkpoints
from finetune_store.s3store import S3Store
from tests.s3server import STORE_KEYS, s3_server
from tests.trainer.conftest import Workshop
from tests.trainer.pods import EVERY_STEP, Group, Pod, finished, meeting
from tests.trainer.runs import difference, directory_of, moved, reference_to, weights_of


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Location]:
    for name, value in STORE_KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "server").mkdir()
    with s3_server(tmp_path / "server") as server:
        server.client().create_bucket(Bucket="models")
        yield S3Location(uri="s3://models/team-a", endpoint=server.endpoint)


class Cluster:
    """Pods that have nothing in common but the bucket."""

    def __init__(self, origin: Workshop, location: S3Location, directory: Path) -> None:
        self.location = location
        self._directory = directory
        store = self.store("operator")
        self._there = origin._replace(
            base=moved(origin.store, origin.base, store),
            classification=moved(origin.store, origin.classification, store),
            text=moved(origin.store, origin.text, store),
        )

    def store(self, uid: str) -> S3Store:
        root = self._directory / uid
        root.mkdir(parents=True, exist_ok=True)
        return S3Store(root, self.location)

    def plan(self, **changes: Any) -> TrainingPlan:
        return self._there.long_plan(**changes).model_copy(update={"claim": "", "s3": self.location})

    def pod(self, plan: TrainingPlan, uid: str, **environment: str) -> Pod:
        return Pod(self.store(f"{uid}/store"), plan, uid, environment | STORE_KEYS)

    def group(self, plan: TrainingPlan, uid: str) -> Group:
        ranks = enumerate(meeting(plan.parallelism.ranks))
        return Group(self.pod(plan, f"{uid}-{rank}", **own) for rank, own in ranks)


@pytest.fixture
def cluster(origin: Workshop, location: S3Location, tmp_path: Path) -> Cluster:
    return Cluster(origin, location, tmp_path / "pods")


def calm(origin: Workshop, directory: Path) -> dict[str, torch.Tensor]:
    """The weights of a run on a volume that nothing disturbs."""
    workshop = origin.copied(directory)
    return weights_of(workshop.store, finished(workshop.store, workshop.long_plan(), "calm"))


def test_pods_that_share_only_a_bucket_train_one_run_bit_by_bit(
    cluster: Cluster, origin: Workshop, tmp_path: Path
) -> None:
    killed = cluster.pod(cluster.plan(checkpoints=EVERY_STEP), "killed")
    killed.wait_until(lambda: bool((seen := killed.progress()) and (seen.checkpoint_step or 0) >= 5))
    killed.signal(signal.SIGKILL)
    assert killed.exit_code() == -signal.SIGKILL

    stopped = cluster.pod(cluster.plan(attempt=2), "stopped")
    stopped.wait_until(lambda: bool((seen := stopped.progress()) and seen.step > (seen.resumed_from_step or 99)))
    stopped.signal(signal.SIGTERM)
    assert stopped.exit_code() == 78
    first = stopped.result()
    assert first.failure is not None
    assert first.failure.reason is FailureReason.PREEMPTED
    assert first.resumed_from_step is not None
    assert first.resumed_from_step >= 5
    # Told to stop, it has saved the step in hand and uploaded it.
    assert first.checkpoint_step == first.step

    resumed = cluster.pod(cluster.plan(attempt=3), "resumed")
    assert resumed.exit_code() == 0
    result = resumed.result()
    assert result.resumed_from_step == first.step

    reader = cluster.store("reader")
    assert reader.outcome(result.run_key) == result
    assert reader.verify(reference_to(result)) == directory_of(reader, result)
    there = weights_of(reader, result)
    assert difference(there, calm(origin, tmp_path / "calm")) == 0.0
    again = cluster.pod(cluster.plan(attempt=4), "again")
    assert again.exit_code() == 0
    assert again.result().reused


def test_ranks_that_share_only_a_bucket_go_on_together_bit_by_bit(
    cluster: Cluster, origin: Workshop, tmp_path: Path
) -> None:
    parallelism = {"nodes": 2, "timeout_seconds": 30}
    killed = cluster.group(cluster.plan(parallelism=parallelism, checkpoints=EVERY_STEP), "killed")
    killed[0].wait_until(lambda: bool((seen := killed[0].progress()) and (seen.checkpoint_step or 0) >= 5))
    killed[0].signal(signal.SIGKILL)
    assert killed.exit_codes()[0] == -signal.SIGKILL

    stopped = cluster.group(cluster.plan(attempt=2, parallelism=parallelism), "stopped")
    stopped[0].wait_until(lambda: bool((seen := stopped[0].progress()) and seen.step > (seen.resumed_from_step or 99)))
    stopped[1].signal(signal.SIGTERM)
    assert stopped.exit_codes() == [78, 78]
    first = stopped[0].result()
    assert first.checkpoint_step == first.step

    resumed = cluster.group(cluster.plan(attempt=3, parallelism=parallelism), "resumed")
    assert resumed.exit_codes() == [0, 0]
    result = resumed[0].result()
    assert result.resumed_from_step == first.step

    undisturbed = cluster.group(cluster.plan(run_key="calm", parallelism=parallelism), "calm")
    assert undisturbed.exit_codes() == [0, 0]
    found = []
    reader = cluster.store("reader")
    for each in (result, undisturbed[0].result()):
        reader.verify(reference_to(each))
        found.append(weights_of(reader, each))
    assert difference(*found) == 0.0


def test_a_rank_that_cannot_read_what_rank_0_goes_on_from_says_so(cluster: Cluster) -> None:
    checkpoints = open_checkpoints(cluster.store("here"), "a" * 64, "pod", 2)
    with pytest.raises(FineTuneError, match="rank 0 goes on from it") as caught:
        checkpoints.on_this_disk("another", 7)
    assert caught.value.reason is FailureReason.CHECKPOINT_CORRUPT
