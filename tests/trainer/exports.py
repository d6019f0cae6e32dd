"""A finished run, and what is made of it: on a model that llama.cpp's converter can read."""

import os
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.exporting import Cost, ExportPlan, ExportResult
from finetune_contract.manifest import StoredKind
from finetune_contract.paths import ENV_IMAGE
from finetune_contract.results import TrainingResult
from finetune_store.store import Store
from finetune_trainer.export.gguf import ENV_CONVERTER
from finetune_trainer.export.main import export
from tests.trainer import runs, tiny
from tests.trainer.conftest import Workshop

CONVERTER = Path(os.environ.get(ENV_CONVERTER, Path(__file__).parents[2] / ".venv" / "gguf-converter"))
IMAGE = "registry.example/trainer@sha256:" + "1" * 64


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, TrainingResult]:
    """An adapter for a bf16 base with Llama's kind of tokenizer, from a source that says its licence."""
    store = Store(tmp_path_factory.mktemp("exports"), tiny.CLAIM)
    with store.workspace(StoredKind.MODEL) as directory:
        tiny.build_byte_fallback_tokenizer(directory)
        tiny.build_model(directory, dtype="bfloat16", bos_token_id=1)
        lineage = {"source": "hub:org/tiny", "revision": "c0ffee", "license": "apache-2.0"}
        base = store.publish(StoredKind.MODEL, directory, lineage)
    splits = {"train": tiny.classification_rows(96, 1), "test": tiny.classification_rows(24, 2)}
    rows = tiny.publish_dataset(store, RowFormat.CLASSIFICATION, splits)
    workshop = Workshop(store, base, rows, rows)
    plan = workshop.plan(
        evaluation={"metrics": ["EvalLoss", "ExactMatch"], "baselines": ["ZeroShot"]}, hyperparameters={"epochs": 8}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV_IMAGE, IMAGE)
        return workshop, runs.run(store, plan)


class Exports:
    """One finished run, and what is made of it."""

    def __init__(self, workshop: Workshop, result: TrainingResult) -> None:
        self.store, self.result = workshop.store, result
        self.training = workshop.plan(hyperparameters={"epochs": 8})
        assert result.artifact is not None
        self.artifact = result.artifact

    def plan(self, **settings: Any) -> ExportPlan:
        """A plan for one export."""
        return ExportPlan.model_validate({
            "training": self.training,
            "artifact": self.artifact,
            "export": settings,
            "evaluation": self.result.evaluation,
            "cost": Cost(seconds=70, gpu_seconds=560),
        })  # fmt: skip

    def make(self, **settings: Any) -> ExportResult:
        """Make one in this process."""
        return export(self.plan(**settings), self.store.root)

    def directory(self, result: ExportResult) -> Path:
        """The export's files, verified."""
        assert result.digest is not None
        assert result.uri is not None
        return self.store.verify(StoredReference(digest=result.digest, uri=result.uri))


@pytest.fixture
def job(trained: tuple[Workshop, TrainingResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    """Exports of the trained artifact, in a store of the test's own."""
    workshop, result = trained
    monkeypatch.setenv(ENV_CONVERTER, str(CONVERTER))
    return Exports(workshop.copied(tmp_path / "store"), result)
