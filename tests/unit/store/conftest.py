"""A store on a temporary directory, and content to put into it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.manifest import StoredKind
from finetune_store.store import Store

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
