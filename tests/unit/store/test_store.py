"""Published directories: complete or absent, verified, never two of one content."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import Manifest, StoredKind
from finetune_store.edge import failure_of
from finetune_store.store import Store
from tests.unit.store.conftest import Publish

DIGEST = "sha256:" + "0" * 64


def test_published_content_is_found_by_its_digest(store: Store, publish: Publish) -> None:
    ref = publish()
    path = store.verify(ref)
    assert path == store.root / "models" / ref.digest.removeprefix("sha256:")
    assert ref.uri == f"pvc://finetune-artifacts/models/{path.name}"
    assert (path / "weights/model.safetensors").read_text() == "weights"
    manifest = Manifest.model_validate_json((path / "manifest.json").read_text())
    assert [entry.path for entry in manifest.files] == ["config.json", "weights/model.safetensors"]
    assert manifest.lineage == {"source": "test"}


def test_a_directory_is_writable_for_the_group(store: Store, publish: Publish) -> None:
    before = os.umask(0o077)
    try:
        path = store.path(publish())
    finally:
        os.umask(before)
    assert [oct(entry.stat().st_mode & 0o070) for entry in (path, path / "weights", path.parent)] == ["0o70"] * 3


def test_the_same_content_is_kept_once(store: Store, publish: Publish) -> None:
    first = publish()
    inode = store.path(first).stat().st_ino
    assert publish() == first
    assert store.path(first).stat().st_ino == inode
    assert not list((store.root / ".work").iterdir())


def test_a_dataset_is_named_by_its_rows_not_by_its_files(store: Store) -> None:
    with store.workspace(StoredKind.DATASET) as work:
        (work / "train.parquet").write_text("written by pyarrow 26")
        first = store.publish(StoredKind.DATASET, work, {}, DIGEST)
    with store.workspace(StoredKind.DATASET) as work:
        (work / "train.parquet").write_text("written by pyarrow 27")
        assert store.publish(StoredKind.DATASET, work, {}, DIGEST) == first
    assert (store.verify(first) / "train.parquet").read_text() == "written by pyarrow 26"


def flip(path: Path) -> None:
    (path / "config.json").write_text("[]")


def grow(path: Path) -> None:
    (path / "config.json").write_text("{}   ")


def remove(path: Path) -> None:
    (path / "config.json").unlink()


def add(path: Path) -> None:
    (path / "modeling_evil.py").write_text("")


def link_elsewhere(path: Path) -> None:
    (path / "config.json").unlink()
    (path / "config.json").symlink_to("/etc/hostname")


def tear_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def forge_manifest(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"size":2', '"size":3'))


def escape(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"config.json"', '"../config.json"'))


DAMAGES = pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip, "config.json: has sha256"),
        (grow, "config.json: has 5 bytes; the manifest says 2"),
        (remove, "config.json: is missing"),
        (add, "modeling_evil.py: is not in the manifest"),
        (link_elsewhere, "config.json: is not a regular file"),
        (tear_manifest, "manifest.json: is damaged"),
        (remove_manifest, "has no manifest, so it is incomplete"),
        (forge_manifest, "manifest.json: its digest is not that of its files"),
        (escape, "manifest.json: its digest is not that of its files"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)


@DAMAGES
def test_damage_is_named(store: Store, publish: Publish, damage: Callable[[Path], None], named: str) -> None:
    ref = publish()
    damage(store.path(ref))
    with pytest.raises(FineTuneError, match=named) as raised:
        store.verify(ref)
    is_no_content = damage in (link_elsewhere, remove_manifest)
    wanted = FailureReason.STORAGE_UNAVAILABLE if is_no_content else FailureReason.CHECKSUM_MISMATCH
    assert raised.value.reason is wanted


@DAMAGES
def test_publishing_again_repairs_damage(
    store: Store, publish: Publish, damage: Callable[[Path], None], named: str
) -> None:
    damage(store.path(publish()))
    store.verify(publish())


def test_another_digest_at_the_place_is_refused(store: Store, publish: Publish) -> None:
    ref = publish()
    with pytest.raises(FineTuneError, match=f"{DIGEST} was asked for"):
        store.verify(ref.model_copy(update={"digest": DIGEST}))


def test_what_is_not_there_is_said_to_be_missing(store: Store) -> None:
    with pytest.raises(FineTuneError, match="is not in the store"):
        store.verify(StoredReference(digest=DIGEST, uri="pvc://finetune-artifacts/models/000"))


@pytest.mark.parametrize(
    "uri",
    [
        "pvc://other/models/000",
        "pvc://finetune-artifacts",
        "pvc://finetune-artifacts/",
        "pvc://finetune-artifacts/../etc",
        "pvc://finetune-artifacts/models/../../etc",
        "pvc://finetune-artifacts//etc",
        "pvc://finetune-artifacts/outside/000",
        "s3://bucket/models/000",
        "/etc",
    ],
)
def test_a_uri_that_leaves_the_claim_is_refused(store: Store, uri: str) -> None:
    (store.root / "outside").symlink_to("/etc")
    with pytest.raises(FineTuneError, match="uri: ") as raised:
        store.path(StoredReference(digest=DIGEST, uri=uri))
    assert raised.value.reason is FailureReason.INVALID_PLAN


def test_a_symlink_is_never_published(store: Store) -> None:
    with store.workspace(StoredKind.MODEL) as work:
        (work / "config.json").symlink_to("/etc/hostname")
        with pytest.raises(FineTuneError, match="is not a regular file"):
            store.publish(StoredKind.MODEL, work, {})
    assert not (store.root / "models").exists()


def test_a_store_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    with pytest.raises(FineTuneError, match="claim artifacts is not mounted here"):
        Store(tmp_path / "nowhere", "artifacts")


def test_leftovers_of_killed_pods_are_swept_after_a_day(store: Store) -> None:
    work = store.root / ".work"
    for name, age in {"models-old": 25 * 3600, "models-young": 23 * 3600}.items():
        (work / name).mkdir(parents=True)
        (work / name / "part").write_text("")
        for path in (work / name / "part", work / name):
            os.utime(path, (time.time() - age,) * 2)
    with store.workspace(StoredKind.MODEL):
        pass
    assert [path.name for path in work.iterdir()] == ["models-young"]


def test_threads_that_publish_the_same_content_agree(store: Store, publish: Publish) -> None:
    with ThreadPoolExecutor(8) as pool:
        refs = set(pool.map(lambda _: publish(), range(24)))
    assert len(refs) == 1
    store.verify(refs.pop())
    assert len(list((store.root / "models").iterdir())) == 1


PUBLISHER = """
import sys
from pathlib import Path
from finetune_contract.manifest import StoredKind
from finetune_store.store import Store

store = Store(Path(sys.argv[1]), "finetune-artifacts")
for number in range(20):
    with store.workspace(StoredKind.MODEL) as work:
        (work / "config.json").write_text(str(number))
        print(store.publish(StoredKind.MODEL, work, {}).digest)
"""


def test_processes_that_publish_the_same_content_agree(store: Store) -> None:
    command = [sys.executable, "-c", PUBLISHER, str(store.root)]
    pods = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {pod.communicate(timeout=60)[0] for pod in pods}
    assert [pod.returncode for pod in pods] == [0, 0, 0]
    assert len(said) == 1
    assert len(list((store.root / "models").iterdir())) == 20


def test_a_full_volume_is_named_and_left_clean(small_volume: Path) -> None:
    store = Store(small_volume, "small")
    with pytest.raises(OSError, match="No space") as raised, store.workspace(StoredKind.MODEL) as work:
        (work / "model.safetensors").write_bytes(b"x" * 100_000)
    assert failure_of(raised.value).reason is FailureReason.STORAGE_FULL
    assert not list((small_volume / ".work").iterdir())
