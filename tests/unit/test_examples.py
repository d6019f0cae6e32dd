"""Every YAML in examples/ is what the models and the CRDs allow, to the last field."""

from pathlib import Path

import pytest
import yaml

from finetune_operator.api.batchinference import BatchInference
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.modeldeployment import ModelDeployment
from tests.factories import Object

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS: dict[str, type[Dataset | FineTuneJob | ModelDeployment | BatchInference]] = {
    "Dataset": Dataset,
    "FineTuneJob": FineTuneJob,
    "ModelDeployment": ModelDeployment,
    "BatchInference": BatchInference,
}


def documents() -> list[tuple[str, Object]]:
    return [
        (f"{file.relative_to(EXAMPLES)} {item['metadata']['name']}", item)
        for file in sorted(EXAMPLES.rglob("*.yaml"))
        for item in yaml.safe_load_all(file.read_text())
        if item["apiVersion"].startswith("finetune.dev/")
    ]


def unknown_fields(written: object, understood: object, path: str = "spec") -> list[str]:
    """Paths that a document has and the model dropped: a misspelt field would be ignored silently."""
    if isinstance(written, dict) and isinstance(understood, dict):
        found = [f"{path}.{name}" for name in written if name not in understood]
        for name in written.keys() & understood.keys():
            found += unknown_fields(written[name], understood[name], f"{path}.{name}")
        return found
    if isinstance(written, list) and isinstance(understood, list):
        pairs = enumerate(zip(written, understood, strict=True))
        return [found for at, (a, b) in pairs for found in unknown_fields(a, b, f"{path}[{at}]")]
    return []


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in documents()])
def test_example_is_understood_to_the_last_field(item: Object) -> None:
    metadata = {**item["metadata"], "namespace": "default", "uid": "1"}
    resource = MODELS[item["kind"]].model_validate({"metadata": metadata, "spec": item["spec"]})
    assert unknown_fields(item["spec"], resource.spec.to_dict()) == []


def test_there_are_examples_of_every_kind() -> None:
    assert {item["kind"] for _, item in documents()} == set(MODELS)
