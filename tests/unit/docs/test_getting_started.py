"""The three YAMLs of the first page belong together, and its rows become a revision."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_contract.datasets import DatasetPlan, DatasetResult
from finetune_operator.api.dataset import Dataset
from finetune_operator.manifests.dataset import plan
from finetune_operator.settings import Settings
from finetune_trainer.data.prepare import main
from tests.documents import blocks


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    shown = [block for block in blocks("yaml") if block.place.startswith("docs/getting-started/")]
    return {item["kind"]: item for block in shown for item in yaml.safe_load_all(block.text)}


def prepare(document: DatasetPlan, root: Path) -> DatasetResult:
    """Runs the pod's own command."""
    (root / "plan.json").write_text(document.to_json())
    for name in ("store", "source", "scratch"):
        (root / name).mkdir()
    places = {"plan": "plan.json", "store": "store", "source": "source", "scratch": "scratch", "termination-log": "log"}
    main([f"--{option}={root / name}" for option, name in places.items()])
    return DatasetResult.model_validate_json((root / "log").read_text())


def test_the_rows_become_a_revision_with_both_splits(objects: dict[str, Any], tmp_path: Path) -> None:
    resource = objects["Dataset"]
    metadata = {**resource["metadata"], "namespace": "team-a", "uid": "1"}
    dataset = Dataset.model_validate({"metadata": metadata, "spec": resource["spec"]})
    result = prepare(plan(dataset, Settings()), tmp_path)
    assert result.failure is None
    assert (result.rows_read, result.rows_kept) == (8, 8)
    rows = {split.name: split.rows for split in result.splits}
    assert rows.keys() == {"train", "test"}
    assert min(rows.values()) >= 1


def test_each_refers_to_the_one_before(objects: dict[str, Any]) -> None:
    job, deployment = objects["FineTuneJob"], objects["ModelDeployment"]
    assert job["spec"]["dataset"]["name"] == objects["Dataset"]["metadata"]["name"]
    (adapter,) = deployment["spec"]["adapters"]
    assert adapter["fineTuneJob"]["name"] == job["metadata"]["name"]


def test_the_question_asks_for_a_model_that_is_served(objects: dict[str, Any]) -> None:
    (code,) = [block.text for block in blocks("python") if block.place.startswith("docs/getting-started/")]
    (adapter,) = objects["ModelDeployment"]["spec"]["adapters"]
    assert f'model="{adapter["name"]}"' in code
    assert adapter["name"] != objects["ModelDeployment"]["metadata"]["name"]
