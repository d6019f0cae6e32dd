"""Every YAML in the documentation is valid: whole objects, parts of them, statuses, values of the chart."""

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from tests import factories
from tests.documents import ROOT, Block, blocks, completed, words
from tests.schemas import SCHEMAS, complaints, paths

BLOCKS = list(blocks("yaml"))
MINIMAL = {
    "Dataset": factories.make_dataset(),
    "FineTuneJob": factories.make_job(),
    "ModelDeployment": factories.make_deployment(),
    "BatchInference": factories.make_batch(),
}
VALUES = json.loads((ROOT / "charts/finetune-operator/values.schema.json").read_text())
FOREIGN = ("kueue.x-k8s.io/", "argoproj.io/", "source.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "kustomize.")
FOREIGN_API_VERSIONS = (
    "v1",
    "apps/v1",
    "networking.k8s.io/v1",
    "monitoring.coreos.com/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
)
PROMETHEUS = {"scrape_configs", "groups"}
"""What Prometheus's own configuration has at its top."""
OUR_FIELDS = {path for kind in SCHEMAS for path in paths(kind)}
KUBERNETES_FIELDS = {"spec.active", "spec.resources.requests.storage", "spec.suspend"}
"""Fields of Workloads, claims and Jobs that our pages speak of."""


def verdict(document: Any) -> list[str]:
    """What is wrong with a document; nothing if it is valid as one of the things that pages show."""
    if not isinstance(document, dict):
        return ["is no object"]
    api_version = document.get("apiVersion", "finetune.dev/v1alpha1")
    if api_version.startswith(FOREIGN) or api_version in FOREIGN_API_VERSIONS:
        return [] if {"kind", "metadata"} <= document.keys() else ["no kind or metadata"]
    if document.keys() == {"scrape_configs"}:
        # Prometheus' own. Debian's promtool does not know kubernetes_sd_configs; a cluster test has the same labels.
        return []
    if "kind" in document:
        return _of_kind(document["kind"], document)
    if document.keys() <= PROMETHEUS:
        return []
    readings = {f"as spec of a {kind}": _of_kind(kind, {"spec": document.get("spec", document)}) for kind in SCHEMAS}
    if "spec" not in document:
        readings |= {
            f"as {path} of a {kind}": complaints(kind, document, path)
            for kind, schema in SCHEMAS.items()
            for name, child in schema["properties"]["spec"]["properties"].items()
            if "properties" in child and (path := f"spec.{name}")
        }
        readings |= {
            f"as status of a {kind}": _unknown_status(kind, document.get("status", document)) for kind in SCHEMAS
        }
        readings["as values"] = [
            f"{list(error.absolute_path)}: {error.message[:200]}"
            for error in jsonschema.Draft202012Validator(VALUES).iter_errors(document)
        ]
    if any(not wrong for wrong in readings.values()):
        return []
    return [f"{reading}: {'; '.join(wrong)}" for reading, wrong in readings.items()]


def _of_kind(kind: str, document: dict[str, Any]) -> list[str]:
    if kind not in SCHEMAS:
        return [f"no such kind: {kind}"]
    if unknown := document.keys() - {"apiVersion", "kind", "metadata", "spec", "status"}:
        return [f"unknown: {unknown}"]
    metadata = {"name": "example", **document.get("metadata", {})}
    spec = document.get("spec", {})
    whole = "apiVersion" in document
    return complaints(kind, {"metadata": metadata, "spec": spec if whole else {**MINIMAL[kind]["spec"], **spec}})


def _unknown_status(kind: str, part: dict[str, Any]) -> list[str]:
    """Names that a status does not have; pages leave out much of a status, so nothing is missing."""
    known = {path.removeprefix("status.") for path in paths(kind) if path.startswith("status.")}
    return sorted(_names(part) - known)


def _names(value: Any, path: str = "") -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in _names(item, f"{path}[]")}
    if not isinstance(value, dict):
        return set()
    found = set()
    for name, item in value.items():
        here = f"{path}.{name}" if path else name
        found |= {here} | _names(item, here)
    return found


@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in BLOCKS])
def test_yaml_is_valid(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        assert verdict(completed(document)) == []


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"kind": "FineTuneJob", "spec": {"adaptor": {"rank": 8}}}, id="misspelt field"),
        pytest.param({"kind": "FineTuneJob", "spec": {"adapter": {"rank": 0}}}, id="value out of bounds"),
        pytest.param({"kind": "FinetuneJob", "spec": {}}, id="misspelt kind"),
        pytest.param(
            {"kind": "Dataset", "apiVersion": "finetune.dev/v1alpha1", "metadata": {}, "spec": {}}, id="missing"
        ),
        pytest.param({"kind": "FineTuneJob", "spec": {"gate": {"rules": [{"metric": "ExactMatch"}]}}}, id="CEL"),
        pytest.param({"revision": {"row": {}}}, id="misspelt status"),
        pytest.param({"storage": {"accessMode": "ReadWriteSometimes"}}, id="value of the chart"),
    ],
)
def test_these_would_be_found(document: dict[str, Any]) -> None:
    assert verdict(document)


def test_pages_show_every_kind_whole() -> None:
    shown = {item["kind"] for block in BLOCKS for item in yaml.safe_load_all(block.text) if "apiVersion" in item}
    assert shown >= SCHEMAS.keys()


def test_fields_that_sentences_name_exist() -> None:
    named = {
        (word.place, found[1])
        for word in words()
        if (found := re.fullmatch(r"(?:\w+\.)?((?:spec|status)\.[\w.\[\]]+)(?:: .*)?", word.text))
    }
    assert len(named) > 50
    unknown = {(place, path) for place, path in named if path.removesuffix("[]") not in OUR_FIELDS | KUBERNETES_FIELDS}
    assert unknown == set()
