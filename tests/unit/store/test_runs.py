"""Outcomes of runs and their checkpoints."""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.failure import Failure, FailureReason, FineTuneError
from finetune_contract.results import Artifact, ArtifactType, TrainingResult
from finetune_store.checkpoints import Checkpoints
from finetune_store.store import Store
from tests.unit.store.conftest import Publish

KEY = "3f" * 32


def make_outcome(ref: StoredReference, attempt: int = 1) -> TrainingResult:
    artifact = Artifact(digest=ref.digest, uri=ref.uri, type=ArtifactType.ADAPTER, bytes=9, base=ref)
    return TrainingResult(run_key=KEY, attempt=attempt, artifact=artifact)


def test_the_first_outcome_wins(store: Store, publish: Publish) -> None:
    ref = publish()
    assert store.outcome(KEY) is None
    first = store.publish_outcome(make_outcome(ref, attempt=1))
    assert store.publish_outcome(make_outcome(ref, attempt=2)) == first
    assert store.outcome(KEY) == first
    assert [path.name for path in store.run_directory(KEY).iterdir()] == ["outcome.json"]


def test_one_of_many_concurrent_outcomes_wins(store: Store, publish: Publish) -> None:
    ref = publish()
    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(lambda n: store.publish_outcome(make_outcome(ref, n)).attempt, range(1, 17)))
    assert len(said) == 1


def test_an_outcome_without_its_artifact_does_not_count(store: Store, publish: Publish) -> None:
    ref = publish()
    store.publish_outcome(make_outcome(ref, attempt=1))
    (store.path(ref) / "manifest.json").unlink()
    assert store.outcome(KEY) is None
    retrained = make_outcome(publish({"adapter.safetensors": "other"}), attempt=2)
    assert store.publish_outcome(retrained) == retrained == store.outcome(KEY)


def test_a_failure_is_no_outcome(store: Store) -> None:
    failure = Failure(reason=FailureReason.UNKNOWN, message="")
    with pytest.raises(ValueError, match="only a success"):
        store.publish_outcome(TrainingResult(run_key=KEY, attempt=1, failure=failure))


def test_an_outcome_of_another_release_is_named(store: Store) -> None:
    (store.run_directory(KEY) / "outcome.json").write_text('{"runKey": "x", "attempt": 1, "fromTheFuture": true}')
    with pytest.raises(FineTuneError, match=r"outcome\.json: Extra inputs") as raised:
        store.outcome(KEY)
    assert raised.value.reason is FailureReason.CONTRACT_VIOLATION


@pytest.mark.parametrize("key", ["", "..", "a/b", "/etc", ".work"])
def test_a_run_key_that_is_a_path_is_refused(store: Store, key: str) -> None:
    with pytest.raises(FineTuneError, match="is not a run key"):
        store.run_directory(key)


# --- checkpoints ---


def write(checkpoints: Checkpoints, step: int) -> Path:
    path = checkpoints.directory / f"checkpoint-{step}"
    path.mkdir()
    (path / "optimizer.pt").write_text(f"state at {step}")
    return path


def seal(checkpoints: Checkpoints, *steps: int) -> Path:
    for step in steps:
        path = write(checkpoints, step)
        checkpoints.seal(path, step)
    return path


def kept(store: Store) -> list[str]:
    root = store.run_directory(KEY) / "checkpoints"
    return sorted(path.relative_to(root).as_posix() for path in root.glob("*/*"))


@pytest.fixture
def mine(store: Store) -> Checkpoints:
    return Checkpoints(store, KEY, "pod-a", keep=2)


@pytest.fixture
def other(store: Store) -> Checkpoints:
    return Checkpoints(store, KEY, "pod-b", keep=2)


def test_without_checkpoints_there_is_no_newest(mine: Checkpoints) -> None:
    assert mine.newest() is None


def test_the_newest_of_all_pods_is_found(mine: Checkpoints, other: Checkpoints) -> None:
    seal(mine, 5)
    newest = seal(other, 100)
    assert mine.newest() == other.newest() == (100, newest)


def test_a_protected_step_is_kept_and_found_however_old(mine: Checkpoints, other: Checkpoints, store: Store) -> None:
    best = seal(mine, 5)
    mine.protected = other.protected = 5
    seal(other, 6, 7, 8)
    assert kept(store) == ["pod-a/checkpoint-5", "pod-b/checkpoint-7", "pod-b/checkpoint-8"]
    assert mine.at(5) == other.at(5) == best
    assert mine.at(6) is None
    mine.protected = 8
    seal(mine, 9)
    assert kept(store) == ["pod-a/checkpoint-9", "pod-b/checkpoint-8"]


def test_a_step_whose_checkpoint_is_torn_is_not_found(mine: Checkpoints) -> None:
    (seal(mine, 5) / "optimizer.pt").write_text("torn")
    assert mine.at(5) is None


def test_torn_checkpoints_are_passed_over(
    mine: Checkpoints, other: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    good = seal(mine, 10)
    torn = seal(other, 20)
    (torn / "optimizer.pt").write_text("state at 2O")
    write(other, 30)
    with caplog.at_level(logging.WARNING):
        assert mine.newest() == (10, good)
    assert "checkpoint-20 is passed over" in caplog.text
    assert "optimizer.pt: has sha256" in caplog.text
    assert "checkpoint-30" not in caplog.text


def test_older_checkpoints_are_pruned(store: Store, mine: Checkpoints) -> None:
    seal(mine, 1, 2, 3, 4)
    assert kept(store) == ["pod-a/checkpoint-3", "pod-a/checkpoint-4"]


def test_older_checkpoints_of_other_pods_are_pruned(store: Store, mine: Checkpoints, other: Checkpoints) -> None:
    seal(mine, 1, 2)
    seal(other, 3)
    assert kept(store) == ["pod-a/checkpoint-2", "pod-b/checkpoint-3"]


def test_neither_the_newest_nor_the_own_last_one_is_pruned(store: Store, mine: Checkpoints, other: Checkpoints) -> None:
    seal(mine, 100, 110)
    seal(other, 105)
    assert kept(store) == ["pod-a/checkpoint-110", "pod-b/checkpoint-105"]
    seal(other, 90)
    assert kept(store) == ["pod-a/checkpoint-110", "pod-b/checkpoint-105", "pod-b/checkpoint-90"]


def test_unsealed_checkpoints_are_pruned_once_abandoned(store: Store, mine: Checkpoints, other: Checkpoints) -> None:
    write(mine, 1)
    dead, alive = write(other, 2), write(other, 3)
    for path in (dead / "optimizer.pt", dead):
        os.utime(path, (time.time() - 3700,) * 2)
    seal(mine, 4)
    assert kept(store) == ["pod-a/checkpoint-4", "pod-b/checkpoint-3"]
    assert alive.exists()


def test_sealing_another_pods_checkpoint_is_a_mistake(mine: Checkpoints, other: Checkpoints) -> None:
    with pytest.raises(ValueError, match="checkpoint-7"):
        mine.seal(write(other, 7), 7)
