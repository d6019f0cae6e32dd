"""Every value: in the schema, commented, of one type, and refused where it is of another."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.chart.rendering import CHART, Manifest, default_values, needs_helm, schema, try_to_render

Path = tuple[str, ...]

FREE = {("resources", "requests"), ("resources", "limits"), ("metrics", "dashboard", "labels")}
"""Values whose keys are the user's: the schema knows the type of what is in them."""

WRONG: dict[type, Any] = {bool: "yes", int: "many", str: 1, list: {"a": "b"}, dict: ["a"], type(None): "free"}
"""Type of the default -> a value that is none of it."""


def values(tree: Manifest, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value with its path, those of parts before the parts' own."""
    for name, value in tree.items():
        here = (*path, name)
        yield here, value
        if isinstance(value, dict) and here not in FREE:
            yield from values(value, here)


ALL = dict(values(default_values()))
IDS = {path: ".".join(path) for path in ALL}


def refusals(document: Manifest) -> list[str]:
    """Paths of what the schema does not let through."""
    return [".".join(map(str, error.absolute_path)) for error in Draft7Validator(schema()).iter_errors(document)]


def with_value(path: Path, value: object) -> Manifest:
    document = copy.deepcopy(default_values())
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return document


def test_the_defaults_are_let_through() -> None:
    Draft7Validator.check_schema(schema())
    assert refusals(default_values()) == []


def objects_of(node: Any, path: str = "") -> Iterator[tuple[str, Manifest]]:
    """Every object type in the schema."""
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            yield path, node
        for name, part in node.items():
            yield from objects_of(part, f"{path}.{name}")


def test_a_name_that_is_no_value_is_refused_at_every_level() -> None:
    found = dict(objects_of(schema()))
    assert len(found) > 15
    for path, node in found.items():
        assert node.get("additionalProperties") is False, path


@pytest.mark.parametrize("path", list(ALL), ids=list(IDS.values()))
def test_a_value_of_another_type_is_refused(path: Path) -> None:
    wrong = WRONG[type(ALL[path])]
    assert any(found.startswith(".".join(path)) for found in refusals(with_value(path, wrong)))
    assert refusals(with_value((*path[:-1], path[-1] + "Typo"), wrong)) != []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("storage.size", "huge"),
        ("storage.accessMode", "ReadWriteOften"),
        ("watchNamespaces", ["A"]),
        ("watchNamespaces", ["a", "a"]),
        ("image.digest", "sha256:abc"),
        ("replicaCount", -1),
        ("replicaCount", 1.5),
        ("podLabels", {"a": 1}),
        ("accelerators", [{"name": "H100"}]),
        ("accelerators", [{"memoryGib": 80}]),
        ("accelerators", [{"name": "H100", "memoryGib": 0}]),
        ("accelerators", [{"name": "H100", "pricePerHour": "2.5"}]),
        ("prices.apiPerMillionTokens", -1),
        ("settings", {"Workers": 3}),
        ("settings", {"workers": [3]}),
        ("resources.limits", {"memory": ["512Mi"]}),
        ("affinity", {"nodes": {}}),
        ("networkPolicies.apiServerPorts", []),
        ("networkPolicies.apiServerPorts", [70000]),
        ("networkPolicies.clients", [{}]),
        ("networkPolicies.clients", [{"pods": {}}]),
        ("networkPolicies.storage", [{"ports": [{"port": 443, "protocol": "HTTPS"}]}]),
        ("metrics.podMonitor.interval", "30"),
        ("metrics.prometheusRule.thresholds.pendingMinutes", 0),
        ("metrics.prometheusRule.runbookUrl", "docs#alerts"),
    ],
)
def test_a_value_out_of_bounds_is_refused(path: str, value: object) -> None:
    found = refusals(with_value(tuple(path.split(".")), value))
    assert found
    assert all(each.startswith(path) for each in found)


@needs_helm
@pytest.mark.parametrize("value", ['replicaCount="two"', 'unknown="x"', 'storage.size="huge"', 'watchNamespaces=["A"]'])
def test_helm_refuses_and_names_the_value(value: str) -> None:
    done = try_to_render(value)
    assert done.returncode != 0
    assert value.partition("=")[0].partition(".")[0] in done.stderr


def test_every_value_is_commented() -> None:
    """By a line above it or behind it. Groups of commented values need none, and neither do their switches."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = []
    for number, line in enumerate(lines):
        key = re.fullmatch(r"( *)([A-Za-z0-9]+):(.*)", line)
        if key is None or "#" in key[3] or key[2] == "enabled":
            continue
        if not lines[number - 1].strip().startswith("#") and not _is_group(lines, number):
            bare.append(line.strip())
    assert bare == []


def _is_group(lines: list[str], number: int) -> bool:
    """Whether the line opens a group whose values speak for themselves."""
    following = lines[number + 1] if number + 1 < len(lines) else ""
    indent = len(lines[number]) - len(lines[number].lstrip())
    return lines[number].endswith(":") and len(following) - len(following.lstrip()) > indent
