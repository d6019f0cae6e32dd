"""A store on a temporary directory or in S3, and content to put into it."""

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.manifest import StoredKind
from finetune_contract.storage import S3Location, StorePlan
from finetune_store.opening import open_store
from finetune_store.store import Store
from tests.s3server import STORE_KEYS, S3Server, s3_server

Publish = Callable[..., StoredReference]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    root = tmp_path / "store"
    root.mkdir()
    return Store(root, "finetune-artifacts")


@pytest.fixture
def publish(store: Store) -> Publish:
    """Publish files given by name and text; a model by default."""

    def publish(files: dict[str, str] | None = None, kind: StoredKind = StoredKind.MODEL) -> StoredReference:
        with store.workspace(kind) as work:
            for name, text in (files or {"config.json": "{}", "weights/model.safetensors": "weights"}).items():
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                (work / name).write_text(text)
            return store.publish(kind, work, {"source": "test"})

    return publish


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 KiB."""
    if os.getuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    volume = tmp_path / "small"
    volume.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", volume], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.decode()}")
    yield volume
    subprocess.run(["umount", volume], check=True)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, one for all tests of a worker."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_location(s3: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Location:
    """A prefix of a bucket that nothing else is in, with the keys for it in the environment."""
    for name, value in STORE_KEYS.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{abs(hash(request.node.nodeid)):x}"
    s3.client().create_bucket(Bucket=bucket)
    return S3Location(uri=f"s3://{bucket}/team-a", endpoint=s3.endpoint)


@dataclass
class Place:
    """One store, as several pods see it."""

    plan: StorePlan
    directory: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def pod(self) -> Store:
        """The store in a new pod."""
        root = self.directory if self.plan.claim else self.directory / f"pod-{next(self._numbers)}"
        root.mkdir(exist_ok=True)
        return open_store(self.plan, root)


@pytest.fixture(params=["volume", "s3"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """A store on a volume, and one in S3."""
    directory = tmp_path / "stores"
    directory.mkdir()
    if request.param == "volume":
        return Place(StorePlan(claim="finetune-artifacts"), directory)
    return Place(StorePlan(s3=request.getfixturevalue("s3_location")), directory)
