"""The generated CRDs as a judge of objects, without an API server: structure, unknown fields and plain CEL rules.

tests/cluster asks the real API server the same.
"""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy
import jsonschema
from celpy.adapter import json_to_cel

from finetune_operator.api.crd import RESOURCES, crd

SCHEMAS = {entry[1].kind: crd(*entry)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for entry in RESOURCES}


def refusals(schema: dict[str, Any], value: Any) -> list[str]:
    """The messages of the rules that a value breaks, anywhere in it."""
    # Rules about an edit have nothing to say about a new object.
    rules = [rule for rule in schema.get("x-kubernetes-validations", ()) if "oldSelf" not in rule["rule"]]
    found = [rule["message"] for rule in rules if not _program(rule["rule"]).evaluate({"self": json_to_cel(value)})]
    for name, child in schema.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            found += refusals(child, value[name])
    if "items" in schema:
        for item in value:
            found += refusals(schema["items"], item)
    return found


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def complaints(kind: str, value: Any, path: str = "") -> list[str]:
    """What speaks against an object of a kind, or against a part of one (path such as `spec` or `status`)."""
    schema = SCHEMAS[kind]
    for name in filter(None, path.split(".")):
        schema = schema["properties"][name]
    # Draft 4 is the one that OpenAPI 3.0 builds on: exclusiveMinimum is a flag.
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in jsonschema.Draft4Validator(strict(schema)).iter_errors(value)
    ]
    return errors or refusals(schema, with_defaults(schema, value))


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """As the API server fills it in before it looks at the rules."""
    if isinstance(value, list):
        return [with_defaults(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    children = schema.get("properties", {})
    filled = {name: copy.deepcopy(child["default"]) for name, child in children.items() if "default" in child}
    return {name: with_defaults(children.get(name, {}), item) for name, item in {**filled, **value}.items()}


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with unknown fields refused, as `kubectl apply` does."""
    changed = {name: value for name, value in schema.items() if not name.startswith("x-kubernetes")}
    if "properties" in schema:
        changed["properties"] = {name: strict(child) for name, child in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "apiVersion" not in schema["properties"]:
            changed["additionalProperties"] = False
    if "items" in schema:
        changed["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        changed["additionalProperties"] = strict(schema["additionalProperties"])
    return changed


def paths(kind: str) -> Iterator[str]:
    """Every field of a kind: `spec.adapter.rank`, `status.attempts[].reason`."""
    yield from _paths(SCHEMAS[kind], "")


def _paths(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here
        if "items" in child:
            yield f"{here}[]"
            yield from _paths(child["items"], f"{here}[]")
        yield from _paths(child, here)
