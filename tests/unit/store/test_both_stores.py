"""What holds wherever the store is: on a volume that pods share, or in S3, where each pod has its own disk."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.results import Artifact, ArtifactType, TrainingResult
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_contract.staging import BaseSource, ResolvePlan, RunIngredients, StagePlan
from finetune_store.checkpoints import Checkpoints
from finetune_store.deliver import deliver
from finetune_store.opening import open_checkpoints
from finetune_store.resolve import resolve
from finetune_store.stage import stage
from finetune_store.store import Store
from tests.unit.store.conftest import Place

KEY = "3f" * 32
DIGEST = "sha256:" + "0" * 64
MODEL = {"config.json": "{}", "model.safetensors": "weights", "chat/more/deep.txt": "x" * 100_000}


def put(
    store: Store, files: dict[str, str], kind: StoredKind = StoredKind.MODEL, digest: str | None = None
) -> StoredReference:
    with store.workspace(kind) as work:
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
        return store.publish(kind, work, {"source": "test"}, digest)


def test_what_one_pod_has_published_another_reads(place: Place) -> None:
    ref = put(place.pod(), MODEL)
    assert ref.uri.startswith(("pvc://finetune-artifacts/models/", "s3://"))
    path = place.pod().verify(ref)
    assert {name: (path / name).read_text() for name in MODEL} == MODEL
    assert {entry.path for entry in place.pod().check(ref).files} == set(MODEL)
    assert place.pod().holds(ref)


def test_a_model_may_be_looked_at_without_its_weights(place: Place) -> None:
    path = place.pod().without_weights(put(place.pod(), MODEL))
    assert (path / "config.json").read_text() == "{}"
    with pytest.raises(FineTuneError, match="is not in the store"):
        place.pod().without_weights(place.pod().reference(StoredKind.MODEL, DIGEST))


def test_the_same_content_has_the_same_reference(place: Place) -> None:
    assert put(place.pod(), MODEL) == put(place.pod(), MODEL)


def test_the_first_files_of_a_dataset_stay(place: Place) -> None:
    first = put(place.pod(), {"train.parquet": "pyarrow 26"}, StoredKind.DATASET, DIGEST)
    other = place.pod()
    assert put(other, {"train.parquet": "pyarrow 27"}, StoredKind.DATASET, DIGEST) == first
    for pod in (other, place.pod()):
        assert (pod.verify(first) / "train.parquet").read_text() == "pyarrow 26"


def test_pods_that_publish_a_dataset_at_once_leave_one_that_verifies(place: Place) -> None:
    pods = [place.pod() for _ in range(6)]

    def publish(number: int) -> StoredReference:
        return put(pods[number], {"train.parquet": f"pyarrow {number}" * 1000}, StoredKind.DATASET, DIGEST)

    with ThreadPoolExecutor(6) as pool:
        refs = set(pool.map(publish, range(6)))
    assert len(refs) == 1
    ref = refs.pop()
    read = {(pod.verify(ref) / "train.parquet").read_text() for pod in (*pods, place.pod())}
    assert len(read) == 1


@pytest.mark.parametrize("uri", ["pvc://other/models/000", "s3://other/models/000", "{}/../etc", "{}", "{}/"])
def test_what_is_in_another_store_is_refused(place: Place, uri: str) -> None:
    store = place.pod()
    ref = StoredReference(digest=DIGEST, uri=uri.format(store.address))
    with pytest.raises(FineTuneError, match="uri: ") as raised:
        store.verify(ref)
    assert raised.value.reason is FailureReason.INVALID_PLAN


def test_what_is_missing_is_named(place: Place) -> None:
    store = place.pod()
    ref = store.reference(StoredKind.MODEL, DIGEST)
    assert not store.holds(ref)
    with pytest.raises(FineTuneError, match="is not in the store") as raised:
        store.verify(ref)
    assert raised.value.reason is FailureReason.STORAGE_UNAVAILABLE


PUBLISHER = """
import sys
from pathlib import Path
from finetune_contract.manifest import StoredKind
from finetune_contract.storage import StorePlan
from finetune_store.opening import open_store

store = open_store(StorePlan.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
print("ready", flush=True)
with store.workspace(StoredKind.MODEL) as work:
    for number in range(60):
        (work / f"model-{number}.safetensors").write_bytes(bytes(20_000) + str(number).encode())
    (work / "config.json").write_text("{}")
    print(store.publish(StoredKind.MODEL, work, {}).digest, flush=True)
"""


def publisher(place: Place) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PUBLISHER, place.plan.to_json(), str(place.pod().root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def uploaded(place: Place) -> int:
    """Files on their way."""
    if place.plan.s3 is None:
        return sum(1 for _ in place.directory.rglob("model-*"))
    from finetune_store.s3 import Bucket

    return sum(1 for _ in Bucket(place.plan.s3).items("models/"))


def test_a_publisher_that_is_killed_leaves_nothing_half(place: Place) -> None:
    with publisher(place) as killed:
        deadline = time.monotonic() + 60
        while uploaded(place) < 20:
            assert time.monotonic() < deadline
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
    with publisher(place) as first, publisher(place) as second:
        said = {process.communicate(timeout=60)[0].split()[-1] for process in (first, second)}
    assert len(said) == 1
    store = place.pod()
    path = store.verify(store.reference(StoredKind.MODEL, said.pop()))
    assert len(list(path.glob("model-*"))) == 60


# --- sources, runs ---


def test_a_staged_source_is_found_by_other_pods(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_text(MODEL[name])
    plan = StagePlan(
        name="job",
        namespace="team-a",
        source=BaseSource(volume="."),
        run=RunIngredients(train_fields={}, dataset=DIGEST),
        **dict(place.plan),
    )
    results = [stage(plan, place.pod(), source, tmp_path) for _ in range(2)]
    assert results[0] == results[1]
    base = results[0].base
    assert base is not None
    again = plan.model_copy(update={"source": BaseSource(stored=base)})
    assert stage(again, place.pod(), source, tmp_path).run_key == results[0].run_key


def make_outcome(ref: StoredReference, attempt: int = 1) -> TrainingResult:
    artifact = Artifact(digest=ref.digest, uri=ref.uri, type=ArtifactType.ADAPTER, bytes=9, base=ref)
    return TrainingResult(run_key=KEY, attempt=attempt, artifact=artifact)


def test_the_first_of_many_outcomes_wins_and_is_resolved(place: Place) -> None:
    ref = put(place.pod(), MODEL, StoredKind.ARTIFACT)
    pods = [place.pod() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(lambda n: pods[n].publish_outcome(make_outcome(ref, n)).attempt, range(8)))
    assert len(said) == 1
    plan = ResolvePlan(name="job", namespace="team-a", run_key=KEY, **dict(place.plan))
    found = resolve(plan, place.pod()).outcome
    assert found is not None
    assert found.attempt == said.pop()


def test_an_outcome_without_its_artifact_does_not_count(place: Place) -> None:
    lost = place.pod().reference(StoredKind.ARTIFACT, DIGEST)
    store = place.pod()
    first = make_outcome(lost)
    assert store.publish_outcome(first) == first
    assert store.outcome(KEY) is None
    again = make_outcome(put(store, MODEL, StoredKind.ARTIFACT), attempt=2)
    assert store.publish_outcome(again) == again == place.pod().outcome(KEY)


def test_adapters_are_delivered(place: Place, tmp_path: Path) -> None:
    base, adapter = put(place.pod(), MODEL), put(place.pod(), {"adapter.json": "{}"}, StoredKind.ARTIFACT)
    plan = ServingPlan(
        name="served",
        namespace="team-a",
        base=base,
        adapters=(ServedAdapter(name="triage", artifact=adapter),),
        **dict(place.plan),
    )
    store = place.pod()
    for _ in range(2):
        deliver(plan, store, tmp_path)
    assert (tmp_path / "triage" / adapter.digest.removeprefix("sha256:") / "adapter.json").read_text() == "{}"
    # The engine reads the base where the init container left it.
    assert (store.path(base) / "config.json").read_text() == "{}"


# --- checkpoints ---


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        path = checkpoints.directory / f"checkpoint-{step}"
        path.mkdir()
        (path / "optimizer.pt").write_text(f"state at {step}")
        checkpoints.seal(path, step)
    checkpoints.settle()


def found(checkpoints: Checkpoints) -> tuple[int, str] | None:
    newest = checkpoints.newest()
    return (newest[0], (newest[1] / "optimizer.pt").read_text()) if newest else None


def test_another_pod_goes_on_from_the_newest_checkpoint(place: Place) -> None:
    first = open_checkpoints(place.pod(), KEY, "pod-a", 2)
    assert first.newest() is None
    stored: list[int] = []
    first.on_stored = stored.append
    save(first, 5, 10, 15)
    assert stored == [5, 10, 15]
    second = open_checkpoints(place.pod(), KEY, "pod-b", 2)
    assert found(second) == (15, "state at 15")
    assert second.at(10) is not None
    assert second.at(5) is None
    save(second, 20)
    third = open_checkpoints(place.pod(), KEY, "pod-c", 2)
    assert found(third) == (20, "state at 20")
    assert third.at(10) is None


def test_a_protected_checkpoint_stays(place: Place) -> None:
    first = open_checkpoints(place.pod(), KEY, "pod-a", 1)
    first.protected = 5
    save(first, 5, 10, 15)
    second = open_checkpoints(place.pod(), KEY, "pod-b", 1)
    assert second.at(5) is not None
    assert second.at(10) is None
    assert found(second) == (15, "state at 15")


def test_a_pod_that_is_killed_while_it_saves_leaves_what_was_before(place: Place) -> None:
    script = """
import sys
from pathlib import Path
from finetune_contract.storage import StorePlan
from finetune_store.opening import open_checkpoints, open_store

store = open_store(StorePlan.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
checkpoints = open_checkpoints(store, sys.argv[3], "killed", 2)
checkpoints.on_stored = lambda step: print(step, flush=True)
for step in range(1, 1000):
    path = checkpoints.directory / f"checkpoint-{step}"
    path.mkdir()
    for number in range(20):
        (path / f"part-{number}").write_text(f"state {number} at {step}")
    checkpoints.seal(path, step)
"""
    command = [sys.executable, "-c", script, place.plan.to_json(), str(place.pod().root), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pod:
        assert pod.stdout is not None
        last = max(int(next(pod.stdout)) for _ in range(3))
        pod.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in pod.stdout)])
    newest = open_checkpoints(place.pod(), KEY, "next", 2).newest()
    assert newest is not None
    step, path = newest
    assert step >= last
    assert {(path / f"part-{n}").read_text() for n in range(20)} == {f"state {n} at {step}" for n in range(20)}
