"""Everything that the chart renders is let in by the real API server, field for field."""

import json
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster import release
from tests.cluster.conftest import fresh_namespace
from tests.cluster.kube import Kube, Object

pytestmark = pytest.mark.cluster

EVERYTHING = {
    "replicaCount": 2,
    "podDisruptionBudget.enabled": True,
    "podLabels": {"team": "ml"},
    "podAnnotations": {"example.com/a": "b"},
    "imagePullSecrets": [{"name": "pull"}],
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "priorityClassName": "system-cluster-critical",
    "serviceAccount.annotations": {"example.com/a": "b"},
    "metrics.dashboard.enabled": True,
    "metrics.serviceMonitor.enabled": True,
    "networkPolicies.enabled": True,
    "networkPolicies.storage": [{"to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}], "ports": [{"port": 9000}]}],
    "networkPolicies.training": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
    "accelerators": [{"name": "H100", "memoryGib": 79.6, "pricePerHour": 2.5}],
}


@pytest.fixture(scope="module")
def namespace() -> Iterator[Kube]:
    kube = fresh_namespace()
    yield kube
    kube.kubectl("delete", "namespace", kube.namespace, "--wait=false")


@pytest.mark.parametrize("watches", ["all namespaces", "one namespace"])
def test_it_is_let_in(namespace: Kube, system: Kube, watches: str) -> None:
    sets = [f"{path}={json.dumps(value)}" for path, value in EVERYTHING.items()]
    where = json.dumps([namespace.namespace])
    sets.append(f"watchNamespaces={where}" if watches == "one namespace" else f"networkPolicies.namespaces={where}")
    manifests = release.rendered(*sets)
    # Their CRDs come with the Prometheus operator, which the local cluster does not have.
    known = [each for each in manifests if not each["apiVersion"].startswith("monitoring.coreos.com/")]
    assert {each["kind"] for each in known} >= {"NetworkPolicy", "Deployment", "CustomResourceDefinition", "Service"}
    elsewhere = [each for each in known if each["metadata"].get("namespace") == namespace.namespace]
    assert elsewhere, "policies or roles of the users' namespace"
    for kube, some in ((system, [each for each in known if each not in elsewhere]), (namespace, elsewhere)):
        done = dry_run(kube, *some)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        assert len(done.stdout.splitlines()) == len(some)


def dry_run(kube: Kube, *manifests: Object) -> "subprocess.CompletedProcess[str]":
    """What the API server says of objects of one namespace, or of none."""
    text = "\n---\n".join(yaml.safe_dump(each) for each in manifests)
    options = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    return kube.kubectl("apply", *options, "-f", "-", stdin=text, check=False)


def test_a_field_that_is_not_one_would_be_refused(system: Kube) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "wrong"},
        "spec": {"podSelector": {}, "egres": []},
    }
    done = dry_run(system, policy)
    assert done.returncode != 0
    assert "egres" in done.stderr
