"""Every built object is let in by the real API server, in a namespace that enforces Pod Security `restricted`."""

import copy
import json
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import fresh_namespace
from tests.cluster.kube import Kube
from tests.factories import Object
from tests.unit.manifests.objects import every_object

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def namespace() -> Iterator[Kube]:
    kube = fresh_namespace()
    kube.kubectl("create", "serviceaccount", "trainer")  # that a pod template names
    yield kube
    kube.kubectl("delete", "namespace", kube.namespace, "--wait=false")


def pods_of(item: Object) -> list[Object]:
    """The object, and the pod that its controller will make: Pod Security only warns about the former."""
    if "template" not in item.get("spec", {}):
        return [item]
    spec = {**item["spec"]["template"]["spec"]}
    # No such PriorityClass is there; a pod that names it is refused before Pod Security is asked.
    spec.pop("priorityClassName", None)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": item["metadata"]["name"]}, "spec": spec}
    return [item, pod]


@pytest.mark.parametrize(("name", "item"), [pytest.param(*entry, id=entry[0]) for entry in every_object()])
def test_it_is_let_in(namespace: Kube, name: str, item: Object) -> None:
    for built in pods_of(copy.deepcopy(item)):
        built["metadata"]["namespace"] = namespace.namespace
        done = namespace.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(built), check=False
        )
        assert done.returncode == 0, done.stderr
        assert "PodSecurity" not in done.stderr
