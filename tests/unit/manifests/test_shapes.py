"""Objects that no controller here reads have the fields, and the types, that their published schemas have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import extras
from tests import factories
from tests.factories import Object

HERE = Path(__file__).parent / "shapes"
TYPES = {"string": str, "integer": int}
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public", "namespace": "gateways"}
CASES: dict[str, Object] = {
    "HTTPRoute": {
        "route": {"parentRefs": [{**GATEWAY, "sectionName": "https"}], "hostnames": ["*.example.com"]},
        "rollout": {"canary": {}},
    },
    "ScaledObject": {"autoscaling": {"maxReplicas": 3, "keda": {"prometheus": "http://prometheus:9090"}}},
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything that is no object or list."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, f"{path}[]")
    else:
        yield path, value


def shape(kind: str) -> dict[str, list[str]]:
    lines = (HERE / f"{kind.lower()}.txt").read_text().splitlines()
    return {path: words for path, *words in (line.split() for line in lines if not line.startswith("#"))}


@pytest.mark.parametrize("kind", CASES)
def test_every_field_is_one_of_the_published_schema(kind: str) -> None:
    deployment = ModelDeployment.model_validate(factories.make_deployment(**CASES[kind]))
    (item,) = [each for each in extras.build(deployment, is_canary_proven=True) if each["kind"] == kind]
    known = shape(kind)
    patterns = {re.compile(re.escape(path).replace(r"\*", r"[^.]+")): words for path, words in known.items()}
    found = list(leaves({"spec": item["spec"]}))
    for path, value in found:
        types = [words[0] for pattern, words in patterns.items() if pattern.fullmatch(path)]
        assert types, f"{path} is not a field of {kind}"
        assert isinstance(value, TYPES[types[0]]), path
    required = {path for path, words in known.items() if "required" in words}
    assert required <= {path for path, _ in found}
