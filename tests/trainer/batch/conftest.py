"""One tiny base with an adapter per session; every test works on a key or a store of its own."""

import shutil
from pathlib import Path

import pytest
import torch

from finetune_contract.base import StoredReference
from finetune_store.store import Store
from tests.trainer.server.tiny import CLAIM, Shop


@pytest.fixture(scope="session")
def origin_shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, StoredReference]:
    torch.set_num_threads(1)
    shop = Shop(tmp_path_factory.mktemp("shop"))
    return shop, shop.publish(seed=0)


@pytest.fixture
def shop(origin_shop: tuple[Shop, StoredReference], tmp_path: Path) -> Shop:
    """A store of the test's own."""
    there, _ = origin_shop
    shutil.copytree(there.root / "store", tmp_path / "store")
    mine = object.__new__(Shop)
    mine.root, mine.store, mine.base = tmp_path, Store(tmp_path / "store", CLAIM), there.base
    mine.adapters, mine.base_path = tmp_path / "adapters", mine.store.path(there.base)
    return mine


@pytest.fixture
def adapter(origin_shop: tuple[Shop, StoredReference]) -> StoredReference:
    return origin_shop[1]
