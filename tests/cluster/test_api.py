"""What the real API server refuses and accepts: bad YAML is named by the field's path. Nothing is stored."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_operator.reconcile.kinds import KINDS
from tests import factories
from tests.cluster.conftest import fresh_namespace
from tests.cluster.kube import Kube

pytestmark = pytest.mark.cluster

HUB = {"huggingFace": {"repo": "org/model"}}
VOLUME = {"claimName": "raw"}


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


def dataset(**spec: Any) -> dict[str, Any]:
    return factories.make_dataset(**spec)


def rows(source: dict[str, Any]) -> dict[str, Any]:
    return factories.make_dataset(source=source)


def job(**spec: Any) -> dict[str, Any]:
    return factories.make_job(**spec)


def tuned(**hyperparameters: Any) -> dict[str, Any]:
    return factories.make_job(hyperparameters=hyperparameters)


def adapters(*names: str) -> dict[str, Any]:
    return factories.make_deployment(adapters=[{"name": name, "fineTuneJob": {"name": "x"}} for name in names])


ACCEPTED = {
    "dataset": dataset(),
    "dataset in a config map": rows({"configMap": {"name": "rows", "key": "a.jsonl"}}),
    "dataset by http": rows({"http": {"urls": ["https://example.com/a.jsonl"]}}),
    "dataset in a volume": rows({"persistentVolumeClaim": {**VOLUME, "path": "tickets/**/*.jsonl"}}),
    "job": job(),
    "job by s3": job(baseModel={"s3": {"uri": "s3://bucket/model"}}),
    "job after job": job(baseModel={"fineTuneJob": {"name": "first"}}),
    "job in full": job(adapter={"type": "None"}, method="CPT"),
    "job with length": tuned(maxLength=512, epochs=0.5, learningRate=1e-5),
    "job with resources": job(resources={"requests": {"cpu": 8, "memory": "1.5Gi"}, "limits": {"nvidia.com/gpu": "1"}}),
    "deployment": factories.make_deployment(),
    "deployment of a base": factories.make_deployment(adapters=[], baseModel=HUB),
    "largest inline source": rows({"inline": {"jsonl": "x" * 128 * 1024}}),
    "longest name": factories.make_job("a" * 63),
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no spec": ({**dataset(), "spec": None}, "spec"),
    "empty spec": ({**dataset(), "spec": {}}, "spec.source"),
    "no source": (rows({}), "spec.source"),
    "two sources": (rows({"inline": {"jsonl": "{}"}, "persistentVolumeClaim": VOLUME}), "spec.source"),
    "inline of 1 MB": (rows({"inline": {"jsonl": "x" * 1_000_000}}), "spec.source.inline.jsonl"),
    "inline as a number": (rows({"inline": {"jsonl": 5}}), "spec.source.inline.jsonl"),
    "empty inline": (rows({"inline": {"jsonl": ""}}), "spec.source.inline.jsonl"),
    "no URL": (rows({"http": {"urls": []}}), "spec.source.http.urls"),
    "a file URL": (rows({"http": {"urls": ["file:///etc/passwd"]}}), "spec.source.http.urls[0]"),
    "a checksum too few": (
        rows({"http": {"urls": ["http://a", "http://b"], "sha256": ["0" * 64]}}),
        "spec.source.http",
    ),
    "a path upwards": (rows({"persistentVolumeClaim": {**VOLUME, "path": "../x"}}), "persistentVolumeClaim.path"),
    "a path through": (rows({"persistentVolumeClaim": {**VOLUME, "path": "a/../../b"}}), "persistentVolumeClaim.path"),
    "an absolute path": (rows({"persistentVolumeClaim": {**VOLUME, "path": "/etc"}}), "persistentVolumeClaim.path"),
    "a key with a slash": (rows({"configMap": {"name": "a", "key": "../b"}}), "spec.source.configMap.key"),
    "a claim name with capitals": (rows({"persistentVolumeClaim": {"claimName": "Raw"}}), "claimName"),
    "an unknown format": (dataset(format="CSV"), "spec.format"),
    "an unknown field": (dataset(formt="Text"), "spec.formt"),
    "a long column": (dataset(columns={"x" * 129: "y"}), "spec.columns"),
    "too much held out": (dataset(split={"validation": 0.5, "test": 0.5}), "spec.split"),
    "a negative fraction": (dataset(split={"test": -0.1}), "spec.split.test"),
    "a licence with spaces": (dataset(license={"spdx": "do what you want"}), "spec.license.spdx"),
    "a capital in the name": (factories.make_dataset("Tickets"), "metadata.name"),
    "a digit first": (factories.make_job("1st"), "metadata.name"),
    "a dot in the name": (factories.make_job("a.b"), "metadata.name"),
    "a long name": (factories.make_job("a" * 64), "metadata.name"),
    "no base": (job(baseModel={}), "spec.baseModel"),
    "two bases": (job(baseModel={**HUB, "fineTuneJob": {"name": "x"}}), "spec.baseModel"),
    "itself": (job(baseModel={"fineTuneJob": {"name": "triage"}}), "spec.baseModel.fineTuneJob.name"),
    "a repository upwards": (job(baseModel={"huggingFace": {"repo": "../.."}}), "spec.baseModel.huggingFace.repo"),
    "an address that is not s3": (job(baseModel={"s3": {"uri": "http://x"}}), "spec.baseModel.s3.uri"),
    "no dataset": (job(dataset=None), "spec.dataset"),
    "a dataset as a word": (job(dataset="tickets"), "spec.dataset"),
    "an unknown method": (job(method="Magic"), "spec.method"),
    "rank 0": (job(adapter={"rank": 0}), "spec.adapter.rank"),
    "a rank in words": (job(adapter={"rank": "sixteen"}), "spec.adapter.rank"),
    "half a rank": (job(adapter={"rank": 1.5}), "spec.adapter.rank"),
    "dropout 1": (job(adapter={"dropout": 1}), "spec.adapter.dropout"),
    "all-linear and more": (job(adapter={"targetModules": ["all-linear", "q_proj"]}), "spec.adapter"),
    "maxLength 3": (tuned(maxLength=3), "spec.hyperparameters.maxLength"),
    "maxLength auto": (tuned(maxLength="auto"), "spec.hyperparameters.maxLength"),
    "negative epochs": (tuned(epochs=-1), "spec.hyperparameters.epochs"),
    "no learning rate": (tuned(learningRate=0), "spec.hyperparameters.learningRate"),
    "a negative seed": (tuned(seed=-1), "spec.hyperparameters.seed"),
    "packing in words": (tuned(packing="yes"), "spec.hyperparameters.packing"),
    "a metric twice": (job(evaluation={"metrics": ["EvalLoss", "EvalLoss"]}), "spec.evaluation.metrics"),
    "a negative quantity": (job(resources={"limits": {"nvidia.com/gpu": -1}}), "spec.resources.limits"),
    "a quantity in words": (job(resources={"limits": {"memory": "lots"}}), "spec.resources.limits.memory"),
    "too many resources": (job(resources={"limits": {f"r{n}": 1 for n in range(17)}}), "spec.resources.limits"),
    "a grace period of an hour and more": (job(checkpoints={"gracePeriodSeconds": 3601}), "gracePeriodSeconds"),
    "an empty deployment": (factories.make_deployment(adapters=[]), "spec"),
    "an adapter twice": (adapters("a", "a"), "spec.adapters[1]"),
    "an adapter named as an alias": (adapters("tgi"), "spec.adapters[0]"),
    "an adapter named as the deployment": (adapters("support"), "spec.adapters"),
    "33 adapters": (adapters(*(f"a{n}" for n in range(33))), "spec.adapters"),
    "negative replicas": (factories.make_deployment(replicas=-1), "spec.replicas"),
    "an unknown engine": (factories.make_deployment(engine={"type": "Rocket"}), "spec.engine.type"),
}


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
