"""No object that the schema lets through stops a reconcile, and each ends in a status that the CRD accepts.

Objects are made from the CRDs themselves, without most of their CEL rules: more than the API server lets through.
"""

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_operator.api.crd import RESOURCES, crd
from finetune_operator.reconcile.kinds import KINDS
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import Object
from tests.unit.reconcile.world import SCHEMAS, World

UNION = "set exactly one of "
"""The message of the one CEL rule that is kept to: a union of nothing is nothing."""

MOST = 3
"""Entries of lists and maps that are made, where more are allowed."""

NUMBERS = {
    "minimum": "min_value",
    "maximum": "max_value",
    "exclusiveMinimum": "exclude_min",
    "exclusiveMaximum": "exclude_max",
}
"""Bounds of a structural schema -> those of hypothesis."""


def values(schema: Object) -> st.SearchStrategy[Any]:
    """Whatever a structural schema lets through."""
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 2**62) | st.sampled_from(["Auto", "1", "999999999999E", "0.5", "64Gi", "1m"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "object" if "properties" in schema:
            return _objects(schema)
        case "object":
            return st.dictionaries(st.text(max_size=20), values(schema["additionalProperties"]), max_size=MOST)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(values(schema["items"]), min_size=least, max_size=max(least, min(MOST, schema["maxItems"])))
        case "string":
            return _strings(schema)
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1))
        case _:
            bounds = {ours: schema[theirs] for theirs, ours in NUMBERS.items() if theirs in schema}
            return st.floats(**bounds, allow_nan=False, allow_infinity=False)


def _objects(schema: Object) -> st.SearchStrategy[Any]:
    required = set(schema.get("required", ()))
    fields = {name: values(child) for name, child in schema["properties"].items()}
    for message in (rule["message"] for rule in schema.get("x-kubernetes-validations", ())):
        if message.startswith(UNION):
            choices = message.removeprefix(UNION).split(", ")
            return st.one_of([st.fixed_dictionaries({name: fields[name]}) for name in choices])
    return st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in required},
        optional={name: field for name, field in fields.items() if name not in required},
    )


def _strings(schema: Object) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.datetimes().map(lambda when: when.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"))
    longest = schema["maxLength"]
    if "pattern" in schema:
        pattern: str = schema["pattern"]
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(longest, 40))


def _root(kind: str) -> Object:
    entry = next(entry for entry in RESOURCES if entry[1].kind == kind)
    root = crd(*entry)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return {**root, "properties": {name: root["properties"][name] for name in ("spec", "status")}}


OBJECTS = {kind: values(_root(kind)) for kind in KINDS}
FACTORIES = {
    "BatchInference": factories.make_batch,
    "Dataset": factories.make_dataset,
    "FineTuneJob": factories.make_job,
    "ModelDeployment": factories.make_deployment,
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_the_schema_lets_through_ends_in_a_status(kind: str, data: st.DataObject) -> None:
    drawn = data.draw(OBJECTS[kind])
    raw = {**FACTORIES[kind](), **copy.deepcopy(drawn)}
    references = KINDS[kind].references(raw, World(raw).settings)
    others = data.draw(st.lists(st.sampled_from(references), unique=True))
    here = World(raw, *(_referred(name) for name in others))
    for _ in range(3):
        outcome = here.decide()
        if outcome.status is None:
            continue
        status = json.loads(json.dumps(outcome.status))
        if {"Accepted", "Ready"} <= {condition["type"] for condition in status.get("conditions", ())}:
            SCHEMAS[kind].validate(status)
        here.raw["status"] = status
        for manifest in outcome.create:
            here._create(manifest)


def _referred(name: Reference) -> Object:
    if name.kind in FACTORIES:
        return factories.ready_dataset(name.name) if name.kind == "Dataset" else factories.finished_job(name.name)
    metadata = {"name": name.name, "uid": "u", "creationTimestamp": factories.stamp(factories.NOW)}
    return {"kind": name.kind, "metadata": metadata}
