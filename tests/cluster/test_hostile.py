"""Bad input: refused with the field's path, or ended in a named condition; the others' work goes on meanwhile.

What the API server refuses is also in test_api; here are the hostile ones: wrong types, sizes, traversal, other
namespaces, circles. Everything in NAMED is in one namespace at once, and a good Dataset comes last.
"""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import fresh_namespace
from tests.cluster.kube import Kube
from tests.verdicts.hostile import GOOD_ROWS, NAMED, REFUSED, named, source

pytestmark = pytest.mark.cluster

SECONDS = 240
"""For all of them, on a busy machine: a dozen start a pod, two of them after others."""


def key_of(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).replace("--", "-")


@pytest.fixture(scope="module")
def namespace() -> Iterator[Kube]:
    kube = fresh_namespace()
    yield kube
    kube.kubectl("delete", "namespace", kube.namespace, "--wait=false")


@pytest.fixture(scope="module")
def pen(namespace: Kube) -> Kube:
    """Everything in NAMED, and then a good Dataset."""
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "good-rows"}}
    namespace.apply({**config_map, "data": {"rows.jsonl": GOOD_ROWS}})
    items = [named(key_of(name), item) for name, (item, _) in NAMED.items()]
    namespace.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    namespace.apply(named("good", source(configMap={"name": "good-rows", "key": "rows.jsonl"})))
    return namespace


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_path(namespace: Kube, name: str) -> None:
    item, path = REFUSED[name]
    done = namespace.kubectl("create", "-f", "-", stdin=json.dumps(item), check=False)
    assert done.returncode != 0, done.stdout
    assert path in done.stderr


def test_a_good_dataset_among_them_becomes_ready(pen: Kube) -> None:
    assert pen.wait_ready("dataset", "good", SECONDS)["revision"]["rows"]["kept"] == 20


@pytest.mark.parametrize("name", NAMED)
def test_it_ends_in_a_named_condition(pen: Kube, name: str) -> None:
    item, reasons = NAMED[name]
    kind, key = item["kind"].lower(), key_of(name)

    def reason() -> str:
        ready = pen.condition(kind, key, "Ready")
        # While a source is tried again, its failure is in the status beside the condition.
        failure = (pen.status(kind, key).get("failure") or {}).get("reason", "")
        found = {ready.get("reason", ""), failure} & set(reasons)
        return next(iter(found), "")

    pen.wait(f"{key}: {' or '.join(reasons)}", reason, SECONDS)
    assert pen.condition(kind, key, "Ready")["message"]


def test_no_pass_has_raised(pen: Kube, system: Kube) -> None:
    selector = "app.kubernetes.io/name=finetune-operator"
    log = system.kubectl("logs", "-l", selector, "--tail=-1").stdout
    assert [line for line in log.splitlines() if pen.namespace in line and ": failed, again in" in line] == []
