"""The schemas of the CRDs that this version of the CLI was released with."""

from functools import cache
from importlib.resources import files

import yaml

from finetune_cli.offline.schema import Schema

METADATA: Schema = {
    "type": "object",
    "properties": {
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        },
        "generateName": {"type": "string", "minLength": 1},
        "namespace": {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "items": {"type": "object", "additionalProperties": {}}},
        # What `kubectl get -o yaml` writes.
        "creationTimestamp": {"type": "string"},
        "generation": {"type": "integer"},
        "managedFields": {"type": "array", "items": {"type": "object", "additionalProperties": {}}},
        "resourceVersion": {"type": "string"},
        "uid": {"type": "string"},
    },
}
"""What may stand in any object's metadata."""


@cache
def schemas() -> dict[str, Schema]:
    """Kind -> its schema, with real metadata and without status, which people do not write."""
    # The loader of libyaml is ten times as fast, and not everywhere.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Schema] = {}
    for file in sorted(files("finetune_cli").joinpath("crds").iterdir(), key=lambda one: one.name):
        if not file.name.endswith(".yaml"):
            continue
        crd = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe one
        schema: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        properties = {name: child for name, child in schema["properties"].items() if name != "status"}
        found[crd["spec"]["names"]["kind"]] = {**schema, "properties": {**properties, "metadata": METADATA}}
    return found
