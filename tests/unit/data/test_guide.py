"""The guide's messy file becomes a clean revision step by step: with the guide's own YAML, through the real command."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_contract.datasets import DatasetResult
from finetune_operator.api.dataset import Dataset
from finetune_operator.manifests import dataset as manifests
from finetune_operator.settings import Settings
from tests.unit.data.conftest import Pod
from tests.unit.test_examples import unknown_fields

GUIDE = Path(__file__).resolve().parents[3] / "docs/user-guides/datasets.md"
BLOCK = re.compile(r"```(?P<language>\w+)\n(?P<code>.*?)```|(?P<quote>(?:^> [^\n]*\n)+)", re.DOTALL | re.MULTILINE)


def blocks() -> list[re.Match[str]]:
    text = GUIDE.read_text()
    return list(BLOCK.finditer(text[text.index("## Step by step") : text.index("## Sources")]))


def answer_of(pod: Pod, spec: dict[str, Any]) -> DatasetResult:
    metadata = {"name": "tickets", "namespace": "team-a", "uid": "1"}
    resource = Dataset.model_validate({"metadata": metadata, "spec": spec})
    assert unknown_fields(spec, resource.spec.to_dict()) == []
    plan = manifests.plan(resource, Settings())
    fields = {name: getattr(plan, name) for name in plan.model_fields_set - {"name", "namespace", "claim", "version"}}
    return pod.prepare(fields.pop("source"), **fields)


def test_every_step_of_the_guide_ends_as_it_says(pod: Pod) -> None:
    pod.write("tickets.csv", (GUIDE.parent / "files/tickets.csv").read_bytes())
    spec: dict[str, Any] = {}
    result: DatasetResult | None = None
    checked = 0
    for block in blocks():
        if block["language"] == "yaml":
            document = yaml.safe_load(block["code"])
            spec |= document.get("spec", document)
            result = answer_of(pod, spec)
        elif result and block["quote"]:
            assert result.failure is not None, "the guide tells of a failure"
            said = re.sub(r"\s+", " ", block["quote"].replace("\n> ", " ").removeprefix("> ")).strip()
            pattern = re.escape(said).replace(re.escape("..."), ".*").replace("\\ ", " ")
            assert re.fullmatch(pattern, f"{result.failure.reason}: {result.failure.message}"), result.failure
            checked += 1
        elif result and block["code"].startswith("$ kubectl get dataset"):
            shown = json.loads(block["code"].partition("\n")[2])
            assert shown == {name: revision_of(result)[name] for name in shown}
            checked += 1
        elif result and "dropped.jsonl.zst" in block["code"]:
            shown = [json.loads(line) for line in block["code"].splitlines()[1:]]
            assert shown == pod.dropped(result)
            checked += 1
    assert checked == 5
    assert result is not None
    rows = [*pod.rows(result), *pod.rows(result, "test")]
    assert any("[EMAIL]" in row["completion"] for row in rows)
    assert not any("jane.doe" in row["completion"] for row in rows)


def revision_of(result: DatasetResult) -> dict[str, Any]:
    """As the status says it."""
    document: dict[str, Any] = json.loads(result.to_json())
    return document | {"rows": {"read": result.rows_read, "kept": result.rows_kept}}


@pytest.mark.parametrize("name", ["datasets.md", "dataset-cleaning.md"])
def test_every_piece_of_yaml_is_what_the_models_allow(name: str) -> None:
    pieces = re.findall(r"^```yaml\n(.*?)^```", (GUIDE.parent / name).read_text(), re.DOTALL | re.MULTILINE)
    assert pieces
    for piece in pieces:
        document = yaml.safe_load(piece)
        if "revision" in document:
            continue  # of a status
        spec = {"source": {"inline": {"jsonl": "{}"}}} | document.get("spec", document)
        resource = Dataset.model_validate({"metadata": {"name": "a", "namespace": "b", "uid": "1"}, "spec": spec})
        assert unknown_fields(spec, resource.spec.to_dict()) == []
