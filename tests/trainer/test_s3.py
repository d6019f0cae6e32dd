"""Training whose store is in S3: each pod has its own disk, and what it has uploaded is what the next goes on from."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason
from finetune_contract.storage import S3Location
from finetune_contract.training import TrainingPlan
from finetune_store.manifests import read_manifest
from finetune_store.s3store import S3Store
from finetune_store.store import Store
from tests.s3server import KEYS, s3_server
from tests.trainer.conftest import Workshop
from tests.trainer.pods import Pod
from tests.trainer.runs import directory_of, reference_to
from tests.trainer.test_resume import EVERY_STEP, KINDS, differences, free_port, plan_of, weights


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Location]:
    for name, value in KEYS.items():
        monkeypatch.setenv(f"FINETUNE_STORE_{name}", value)
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
        self.references = {field: _moved(origin.store, getattr(origin, field), store) for field in ("base", "text")}
        self.references["classification"] = _moved(origin.store, origin.classification, store)
        self._origin = origin

    def store(self, uid: str) -> S3Store:
        root = self._directory / uid
        root.mkdir(parents=True, exist_ok=True)
        return S3Store(root, self.location)

    def plan(self, kind: str, **changes: Any) -> TrainingPlan:
        plan = plan_of(self._origin._replace(**self.references), kind, **changes)
        return plan.model_copy(update={"claim": "", "s3": self.location})

    def pod(self, plan: TrainingPlan, uid: str) -> Pod:
        environment = {f"FINETUNE_STORE_{name}": value for name, value in KEYS.items()}
        return Pod(self.store(f"{uid}/store"), plan, uid, free_port(), environment)


def _moved(origin: Store, ref: StoredReference, store: S3Store) -> StoredReference:
    directory = origin.path(ref)
    manifest = read_manifest(directory)
    moved = store.reference(manifest.kind, manifest.digest)
    store.upload(store.path(moved).relative_to(store.root).as_posix(), directory, manifest)
    return moved


@pytest.fixture
def cluster(origin: Workshop, location: S3Location, tmp_path: Path) -> Cluster:
    return Cluster(origin, location, tmp_path / "pods")


def calm(origin: Workshop, directory: Path, kind: str) -> Any:
    """The weights of a run on a volume that nothing disturbs."""
    shutil.copytree(origin.store.root, directory)
    workshop = origin._replace(store=Store(directory, origin.store.claim))
    pod = Pod(workshop.store, plan_of(workshop, kind), "calm", free_port())
    assert pod.exit_code() == 0
    return weights(workshop, pod.result())


def test_pods_that_share_only_a_bucket_train_one_run_bit_by_bit(
    cluster: Cluster, origin: Workshop, tmp_path: Path
) -> None:
    kind = KINDS[0]
    killed = cluster.pod(cluster.plan(kind, checkpoints=EVERY_STEP), "killed")
    killed.wait_until(lambda: bool((seen := killed.progress()) and (seen.checkpoint_step or 0) >= 5))
    killed.signal(signal.SIGKILL)
    assert killed.exit_code() == -signal.SIGKILL

    stopped = cluster.pod(cluster.plan(kind, attempt=2), "stopped")
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

    resumed = cluster.pod(cluster.plan(kind, attempt=3), "resumed")
    assert resumed.exit_code() == 0
    result = resumed.result()
    assert result.resumed_from_step == first.step

    reader = cluster.store("reader")
    assert reader.outcome(result.run_key) == result
    assert reader.verify(reference_to(result)) == directory_of(reader, result)
    there = weights(origin._replace(store=reader), result)
    assert differences(there, calm(origin, tmp_path / "calm", kind)) == 0.0
    again = cluster.pod(cluster.plan(kind, attempt=4), "again")
    assert again.exit_code() == 0
    assert again.result().reused
