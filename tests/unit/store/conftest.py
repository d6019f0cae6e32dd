"""A store on a temporary directory, and content to put into it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_contract.manifest import StoredKind
from finetune_contract.plans import StoredReference
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
