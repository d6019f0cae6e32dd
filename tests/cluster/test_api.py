"""What the real API server refuses and accepts: bad YAML is named by the field's path. Nothing is stored."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_operator.reconcile.kinds import KINDS
from tests.cluster.conftest import fresh_namespace
from tests.cluster.kube import Kube
from tests.verdicts.plain import ACCEPTED, REFUSED

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def namespace() -> Iterator[Kube]:
    kube = fresh_namespace()
    yield kube
    kube.kubectl("delete", "namespace", kube.namespace, "--wait=false")


def create(kube: Kube, resource: dict[str, Any]) -> tuple[bool, str]:
    """Whether the API server takes a resource, and its words or the resource as it would be stored."""
    plain = {**resource, "metadata": {"name": resource["metadata"]["name"], "namespace": kube.namespace}}
    done = kube.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(plain), check=False)
    return done.returncode == 0, done.stdout or done.stderr


@pytest.mark.parametrize("name", ACCEPTED)
def test_good_yaml_is_accepted_and_still_read(namespace: Kube, name: str) -> None:
    resource = ACCEPTED[name]
    accepted, answer = create(namespace, resource)
    assert accepted, answer
    stored = json.loads(answer)
    assert "status" not in stored
    assert stored["kind"] in KINDS


@pytest.mark.parametrize("name", REFUSED)
def test_bad_yaml_is_refused_with_the_path(namespace: Kube, name: str) -> None:
    resource, path = REFUSED[name]
    accepted, answer = create(namespace, resource)
    assert not accepted
    assert path in answer
