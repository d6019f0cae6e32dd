"""The store in S3: servers that fail, content that is damaged, uploads that go on behind the trainer's back."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.storage import S3Location
from finetune_store.disks import reason_when_full
from finetune_store.s3 import Bucket
from finetune_store.s3checkpoints import S3Checkpoints
from finetune_store.s3store import S3Store
from finetune_store.store import sealed
from tests.s3server import S3Server
from tests.unit.store.faultyproxy import Faults, faulty, once_for_each
from tests.unit.store.test_both_stores import KEY, MODEL, found, put, save


@pytest.fixture
def faults(s3: S3Server) -> Iterator[Faults]:
    with faulty(s3.endpoint) as faults:
        yield faults


@pytest.fixture
def pod(s3_location: S3Location, faults: Faults, tmp_path: Path) -> Callable[..., S3Store]:
    """The store in a new pod, behind the proxy."""
    numbers = iter(range(100))

    def pod(**changes: str) -> S3Store:
        root = tmp_path / f"pod-{next(numbers)}"
        root.mkdir()
        location = s3_location.model_copy(update={"endpoint": faults.url, **changes})
        return S3Store(root, location, Bucket(location, attempts=3))

    return pod


Pod = Callable[..., S3Store]


@pytest.mark.parametrize("status", [500, 503])
def test_requests_that_fail_once_are_repeated(pod: Pod, faults: Faults, status: int) -> None:
    faults.refuse = once_for_each(status, "PUT", "GET")
    ref = put(pod(), {"config.json": "{}"})
    pod().verify(ref)


def test_a_body_that_breaks_off_is_read_again(pod: Pod, faults: Faults) -> None:
    ref = put(pod(), {"config.json": "{}" * 1000})
    broken = iter([True, True])
    faults.truncate = lambda method, path: method == "GET" and path.endswith("config.json") and next(broken, False)
    assert (pod().verify(ref) / "config.json").read_text() == "{}" * 1000


def test_a_slow_server_is_waited_for(pod: Pod, faults: Faults) -> None:
    faults.delay = 0.1
    pod().verify(put(pod(), {"config.json": "{}"}))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (503, FailureReason.STORAGE_UNAVAILABLE),
        (403, FailureReason.STORAGE_ACCESS_DENIED),
        (507, FailureReason.STORAGE_FULL),
        (501, FailureReason.STORAGE_UNAVAILABLE),
    ],
)
def test_a_server_that_refuses_is_named(pod: Pod, faults: Faults, status: int, reason: FailureReason) -> None:
    store = pod()
    faults.refuse = lambda method, path: status if method == "PUT" and "/models/" in path and ".used" not in path else 0
    with pytest.raises(FineTuneError, match=r"s3://.*/team-a/models/") as raised:
        put(store, MODEL)
    assert raised.value.reason is reason
    faults.refuse = lambda _method, _path: 0
    pod().verify(put(pod(), MODEL))


def test_a_server_that_is_away_is_named(s3_location: S3Location, tmp_path: Path) -> None:
    location = s3_location.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    with pytest.raises(FineTuneError, match=r"127\.0\.0\.1:9") as raised:
        put(S3Store(tmp_path, location, Bucket(location, attempts=1)), MODEL)
    assert raised.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_a_bucket_that_is_not_there_is_named(pod: Pod) -> None:
    with pytest.raises(FineTuneError, match=r"NoSuchBucket.*create the bucket") as raised:
        put(pod(uri="s3://nobody-has-this/x"), MODEL)
    assert raised.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_wrong_and_missing_keys_are_named(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_STORE_AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(FineTuneError) as raised:
        put(pod(), MODEL)
    assert raised.value.reason is FailureReason.STORAGE_ACCESS_DENIED
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"FINETUNE_STORE_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(FineTuneError, match="credentials") as raised:
        put(pod(), MODEL)
    assert raised.value.reason is FailureReason.STORAGE_ACCESS_DENIED


def test_a_full_disk_of_copies_is_the_pods_own(pod: Pod, tmp_path: Path) -> None:
    root = pod().root
    assert reason_when_full(root / "x", store=root, scratch=tmp_path) is FailureReason.EPHEMERAL_STORAGE_FULL
    assert reason_when_full(None, store=root, scratch=tmp_path) is FailureReason.EPHEMERAL_STORAGE_FULL


# --- damage ---


def keys_of(ref: StoredReference, s3: S3Server) -> tuple[Any, str, str]:
    bucket, _, key = ref.uri.removeprefix("s3://").partition("/")
    return s3.client(), bucket, key


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"[]", "config.json: has sha256"),
        ("config.json", b"{} ", "config.json: has sha256"),
        ("config.json", None, "config.json: is missing"),
        ("manifest.json", b'{"version": 1', "manifest.json: is damaged"),
        ("manifest.json", None, "is not in the store, or incomplete"),
    ],
)
def test_damage_is_named_and_mended_by_the_next_publisher(
    pod: Pod, s3: S3Server, name: str, content: bytes | None, said: str
) -> None:
    ref = put(pod(), MODEL)
    client, bucket, key = keys_of(ref, s3)
    if content is None:
        client.delete_object(Bucket=bucket, Key=f"{key}/{name}")
    else:
        client.put_object(Bucket=bucket, Key=f"{key}/{name}", Body=content)
    with pytest.raises(FineTuneError, match=said) as raised:
        pod().verify(ref)
    is_there = (name, content) != ("manifest.json", None)
    wanted = FailureReason.CHECKSUM_MISMATCH if is_there else FailureReason.STORAGE_UNAVAILABLE
    assert raised.value.reason is wanted
    if content == b"[]":  # of the right size: only who reads it notices
        client.delete_object(Bucket=bucket, Key=f"{key}/manifest.json")
    pod().verify(put(pod(), MODEL))


def test_a_manifest_that_leaves_its_directory_is_refused(pod: Pod, s3: S3Server) -> None:
    store = pod()
    ref = put(store, {"train.parquet": ""}, StoredKind.DATASET, "sha256:" + "0" * 64)
    client, bucket, key = keys_of(ref, s3)
    document = store.bucket.get(f"{key.removeprefix('team-a/')}/manifest.json")
    assert document is not None
    forged = document.data.replace(b'"train.parquet"', b'"../../../escaped"')
    client.put_object(Bucket=bucket, Key=f"{key}/manifest.json", Body=forged)
    with pytest.raises(FineTuneError, match=r"leaves its directory|is missing"):
        pod().verify(ref)


def test_what_is_there_is_not_sent_again(pod: Pod, faults: Faults) -> None:
    put(pod(), MODEL)
    faults.requests.clear()
    put(pod(), MODEL)
    assert not [each for each in faults.requests if each.startswith("PUT") and "/.used/" not in each]


def test_a_verified_copy_is_not_fetched_again(pod: Pod, faults: Faults) -> None:
    ref, reader = put(pod(), MODEL), pod()
    reader.verify(ref)
    faults.requests.clear()
    reader.verify(ref)
    assert not [each for each in faults.requests if "/team-a/models/" in each]


# --- checkpoints ---


def test_training_goes_on_while_a_checkpoint_is_uploaded(pod: Pod, faults: Faults) -> None:
    gate, began = threading.Event(), threading.Event()

    def wait(method: str, path: str) -> int:
        if method == "PUT" and path.endswith("checkpoint-1/optimizer.pt"):
            began.set()
            gate.wait(30)
        return 0

    faults.refuse = wait
    checkpoints = S3Checkpoints(pod(), KEY, "pod-a", keep=1)
    stored: list[int] = []
    checkpoints.on_stored = stored.append
    for step in (1, 2):
        path = checkpoints.directory / f"checkpoint-{step}"
        path.mkdir()
        (path / "optimizer.pt").write_text(f"state at {step}")
        checkpoints.seal(path, step)
        assert began.wait(30)
    # The upload of the first is not over, so its files are still there, though one is kept.
    assert stored == []
    assert (checkpoints.directory / "checkpoint-1").is_dir()
    gate.set()
    checkpoints.settle()
    assert stored == [1, 2]
    assert found(S3Checkpoints(pod(), KEY, "pod-b", keep=1)) == (2, "state at 2")


def test_an_upload_that_fails_is_told_at_the_next_save(pod: Pod, faults: Faults) -> None:
    checkpoints = S3Checkpoints(pod(), KEY, "pod-a", keep=2)
    faults.refuse = lambda method, path: 507 if method == "PUT" and "optimizer.pt" in path else 0
    with pytest.raises(FineTuneError) as raised:
        save(checkpoints, 1)
    assert raised.value.reason is FailureReason.STORAGE_FULL
    faults.refuse = lambda _method, _path: 0
    save(checkpoints, 2)
    assert found(S3Checkpoints(pod(), KEY, "pod-b", keep=2)) == (2, "state at 2")


def test_a_torn_checkpoint_is_reported_and_passed_over(
    pod: Pod, s3: S3Server, s3_location: S3Location, caplog: pytest.LogCaptureFixture
) -> None:
    save(S3Checkpoints(pod(), KEY, "pod-a", keep=3), 1, 2, 3)
    bucket, _, prefix = s3_location.uri.removeprefix("s3://").partition("/")
    folder = f"{prefix}/runs/{KEY}/checkpoints/pod-a"
    s3.client().put_object(Bucket=bucket, Key=f"{folder}/checkpoint-3/optimizer.pt", Body=b"state at B")
    s3.client().delete_object(Bucket=bucket, Key=f"{folder}/checkpoint-2/manifest.json")
    assert found(S3Checkpoints(pod(), KEY, "pod-b", keep=3)) == (1, "state at 1")
    assert "checkpoint-3 is passed over" in caplog.text
    assert "optimizer.pt: has sha256" in caplog.text


def test_a_server_that_is_away_is_no_reason_to_begin_anew(pod: Pod, faults: Faults) -> None:
    save(S3Checkpoints(pod(), KEY, "pod-a", keep=3), 1)
    second = S3Checkpoints(pod(), KEY, "pod-b", keep=3)
    faults.refuse = lambda _method, path: 503 if "optimizer.pt" in path else 0
    with pytest.raises(FineTuneError) as raised:
        second.newest()
    assert raised.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_two_pods_with_different_cards_do_not_spoil_each_others_upload(pod: Pod, tmp_path: Path) -> None:
    stores, manifests = (pod(), pod()), []
    for number, store in enumerate(stores):
        directory = tmp_path / f"artifact-{number}"
        directory.mkdir()
        (directory / "adapter.safetensors").write_text("weights")
        (directory / "README.md").write_text(f"# It took {number} s")
        manifests.append(sealed(StoredKind.ARTIFACT, directory, {}, None))
        reference = store.reference(StoredKind.ARTIFACT, manifests[-1].digest)
        # Side by side: neither has seen the other's manifest.
        store.upload(f"artifacts/{reference.digest.removeprefix('sha256:')}", directory, manifests[-1])
    assert manifests[0].digest == manifests[1].digest
    assert (pod().verify(reference) / "README.md").read_text() == "# It took 0 s"
