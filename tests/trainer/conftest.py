"""One tiny base model and its datasets per session; every test works on its own copy of their store."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Before torch is imported: two cores are shared with other test processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store
from tests.trainer import tiny


class Workshop(NamedTuple):
    """A store with a base model and datasets."""

    store: Store
    base: StoredReference
    classification: StoredReference
    text: StoredReference

    def plan(self, **changes: Any) -> TrainingPlan:
        """A valid plan: SFT of a LoRA adapter on the classification rows."""
        return tiny.make_plan(changes.pop("base", self.base), changes.pop("dataset", self.classification), **changes)

    def text_plan(self, **changes: Any) -> TrainingPlan:
        """A valid plan: CPT of the whole model on the text rows, packed."""
        hyperparameters = {"packing": True, "epochs": 6, **changes.pop("hyperparameters", {})}
        return self.plan(
            **{"dataset": self.text, "method": "CPT", "adapter": None, "hyperparameters": hyperparameters, **changes}
        )

    def long_plan(self, **changes: Any) -> TrainingPlan:
        """A valid plan: about 100 steps of a LoRA adapter, packed, with dropout, so that random state matters."""
        settings = {"packing": True, "epochs": 12, "global_batch_size": 2, "micro_batch_size": 1}
        return self.plan(adapter={"rank": 4, "alpha": 8, "dropout": 0.2}, hyperparameters=settings, **changes)

    def copied(self, root: Path) -> "Workshop":
        """The same in a store of its own."""
        shutil.copytree(self.store.root, root)
        return self._replace(store=Store(root, self.store.claim))


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Made once; never written to by a test."""
    store = Store(tmp_path_factory.mktemp("origin"), tiny.CLAIM)
    return Workshop(
        store=store,
        base=tiny.publish_model(store),
        classification=tiny.publish_dataset(
            store,
            RowFormat.CLASSIFICATION,
            {"train": tiny.classification_rows(96, 1), "test": tiny.classification_rows(24, 2)},
        ),
        text=tiny.publish_dataset(
            store, RowFormat.TEXT, {"train": tiny.text_rows(96, 1), "test": tiny.text_rows(24, 2)}
        ),
    )


@pytest.fixture
def workshop(origin: Workshop, tmp_path: Path) -> Workshop:
    """A store of the test's own."""
    return origin.copied(tmp_path / "store")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    """The tiny tokenizer, with a ChatML template."""
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    return tiny.build_tokenizer(directory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The training libraries warn about each other's deprecated names; our code is still held to none."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning"))
