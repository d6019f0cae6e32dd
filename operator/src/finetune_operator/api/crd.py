"""Generates the CustomResourceDefinitions from the models: `python -m finetune_operator.api.crd DIRECTORY...`.

A pydantic schema is not a structural schema; what differs is rewritten, and what a structural schema cannot say is
refused with the path of the field. Source of the rules: Kubernetes documentation, "Specifying a structural schema".
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.api import batchinference, dataset, finetunejob, modeldeployment
from finetune_operator.api.base import GROUP, VERSION, ApiModel, PrinterColumn, ResourceMeta, rule, rules

Schema = dict[str, Any]

RESOURCES: tuple[tuple[type[ApiModel], ResourceMeta, tuple[dict[str, str], ...]], ...] = (
    (dataset.Dataset, dataset.META, dataset.ROOT_RULES),
    (finetunejob.FineTuneJob, finetunejob.META, finetunejob.ROOT_RULES),
    (modeldeployment.ModelDeployment, modeldeployment.META, modeldeployment.ROOT_RULES),
    (batchinference.BatchInference, batchinference.META, batchinference.ROOT_RULES),
)

_KEPT = (
    "type", "description", "default", "enum", "format", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "required",
)  # fmt: skip
_UNDERSTOOD = {
    *_KEPT, "$defs", "$ref", "additionalProperties", "anyOf", "const", "items", "properties", "propertyNames",
    "title",
}  # fmt: skip
"""What else a schema may say without anything being lost."""

_MEANINGLESS_FORMATS = {"duration", "uri"}


class NotStructuralError(ValueError):
    """A field that a structural schema cannot carry; the message begins with its path."""


def crd(model: type[ApiModel], meta: ResourceMeta, root_rules: tuple[dict[str, str], ...]) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    document = model.model_json_schema(by_alias=True)
    definitions = document.get("$defs", {})
    root = structural({**document, "properties": _body(document)}, definitions, meta.kind)
    root["required"] = ["spec"]
    root["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **root["properties"],
    }
    root["x-kubernetes-validations"] = list(root_rules)
    root["properties"]["status"].pop("default", None)
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root},
        "subresources": {"status": {}, **({"scale": _SCALE} if meta.scale else {})},
        "additionalPrinterColumns": [_column(column) for column in meta.columns],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{meta.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": meta.kind,
                "listKind": f"{meta.kind}List",
                "plural": meta.plural,
                "singular": meta.kind.lower(),
                "shortNames": list(meta.short_names),
                "categories": ["llm"],
            },
            "versions": [version],
        },
    }


_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def _body(document: Schema) -> Schema:
    return {name: document["properties"][name] for name in ("spec", "status")}


def _column(column: PrinterColumn) -> dict[str, Any]:
    wide = {"priority": 1} if column.wide else {}
    return {"name": column.name, "jsonPath": column.path, "type": column.type, **wide}


def structural(schema: Schema, definitions: Schema, path: str) -> Schema:
    """A pydantic schema node as a structural one; raises NotStructuralError with the node's path."""
    schema = _resolve(schema, definitions, path)
    extensions = {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if extensions.get("x-kubernetes-int-or-string"):
        kept: Schema = {
            key: schema[key]
            for key in ("description", "default", "anyOf", "minimum", "pattern", "maxLength")
            if key in schema
        }
        return {**kept, **extensions}
    if "anyOf" in schema or "oneOf" in schema or "allOf" in schema:
        raise NotStructuralError(f"{path}: unions cannot be said; use 'exactly one of' sub-objects and a CEL rule")
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    lost = sorted(schema.keys() - _UNDERSTOOD - extensions.keys())
    if lost:
        raise NotStructuralError(f"{path}: {', '.join(lost)} would be lost")
    result = {key: schema[key] for key in _KEPT if key in schema and schema[key] is not None}
    if result.get("format") in _MEANINGLESS_FORMATS:
        del result["format"]
    _exclusive_bounds(result)
    _children(schema, result, definitions, path)
    _bounded(result, path)
    return {**result, **extensions}


def _resolve(schema: Schema, definitions: Schema, path: str) -> Schema:
    """Inline references, unwrap `X | None`, and drop null defaults."""
    merged = dict(schema)
    for _ in range(8):
        if "$ref" in merged:
            name = merged.pop("$ref").rsplit("/", 1)[-1]
            target = dict(definitions[name])
            target.pop("description", None) if "description" in merged else None
            merged = {**target, **merged}
        elif "anyOf" in merged and not merged.get("x-kubernetes-int-or-string"):
            branches = [branch for branch in merged["anyOf"] if branch.get("type") != "null"]
            if len(branches) != 1:
                raise NotStructuralError(f"{path}: a union of {len(merged['anyOf'])} types cannot be said")
            del merged["anyOf"]
            merged = {**branches[0], **merged}
        else:
            break
    if merged.get("default", 0) is None:
        del merged["default"]
    if "description" in merged:
        merged["description"] = " ".join(str(merged["description"]).split())
    return merged


def _exclusive_bounds(node: Schema) -> None:
    """JSON Schema's exclusive bounds are numbers, OpenAPI v3's are flags beside the bound."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            node[bound] = node[exclusive]
            node[exclusive] = True


def _children(schema: Schema, result: Schema, definitions: Schema, path: str) -> None:
    if "properties" in schema:
        result["type"] = "object"
        result["properties"] = {
            name: _described(structural(child, definitions, f"{path}.{name}"), f"{path}.{name}")
            for name, child in schema["properties"].items()
        }
        if isinstance(result.get("default"), dict):
            # The server fills nested defaults in; repeating them here would make them two truths.
            result["default"] = {}
    elif schema.get("type") == "object":
        values = schema.get("additionalProperties")
        if not isinstance(values, dict):
            raise NotStructuralError(f"{path}: a free-form object needs a declared value type")
        result["additionalProperties"] = structural(values, definitions, f"{path}.*")
        _key_length(schema.get("propertyNames", {}), result, path)
    if schema.get("type") == "array":
        result["items"] = structural(schema["items"], definitions, f"{path}[]")


def _described(field: Schema, path: str) -> Schema:
    """A field's docstring is what `kubectl explain` and the reference page say."""
    if not field.get("description"):
        raise NotStructuralError(f"{path}: a field needs a docstring")
    return field


def _key_length(names: Schema, result: Schema, path: str) -> None:
    """A structural schema says nothing about a map's keys; a rule can."""
    lost = sorted(names.keys() - {"maxLength"})
    if lost:
        raise NotStructuralError(f"{path}: {', '.join(lost)} of the keys would be lost")
    if names:
        limit = names["maxLength"]
        message = f"a key has at most {limit} characters"
        result |= rules(rule(f"self.all(key, size(key) <= {limit})", message))


def _bounded(node: Schema, path: str) -> None:
    """Every string, list and map has a bound: CEL costs are estimated from them, and etcd is not a data lake."""
    kind = node.get("type")
    if kind is None:
        raise NotStructuralError(f"{path}: no type")
    if kind == "string" and "enum" not in node and "maxLength" not in node and node.get("format") != "date-time":
        raise NotStructuralError(f"{path}: a string needs maxLength")
    if kind == "array" and "maxItems" not in node:
        raise NotStructuralError(f"{path}: a list needs maxItems")
    if kind == "object" and "additionalProperties" in node and "maxProperties" not in node:
        raise NotStructuralError(f"{path}: a map needs maxProperties")
    if kind == "integer":
        node.setdefault("format", "int64")


def render() -> dict[str, str]:
    """File name -> YAML of every CRD."""
    files = {}
    for model, meta, root_rules in RESOURCES:
        text = yaml.safe_dump(crd(model, meta, root_rules), sort_keys=False, width=120, allow_unicode=True)
        files[f"{GROUP}_{meta.plural}.yaml"] = f"# Generated by `make generate`; do not edit.\n{text}"
    return files


def main(directories: list[str]) -> None:
    """Write the CRDs into each directory; none at all is a mistake, not nothing to do."""
    if not directories:
        raise SystemExit("usage: python -m finetune_operator.api.crd DIRECTORY...")
    for directory in directories:
        target = Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        for name, text in render().items():
            (target / name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
