"""Resources and what the API server says of them; test_api asks it, the CLI's `validate` must say the same."""

from typing import Any

from tests import factories

HUB = {"huggingFace": {"repo": "org/model"}}
VOLUME = {"claimName": "raw"}


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


def asks(**source: Any) -> dict[str, Any]:
    return factories.make_batch(input=source)


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
    "batch": factories.make_batch(),
    "batch of a base": factories.make_batch(model={"baseModel": HUB, "name": "Org/Model"}),
    "batch of files": asks(jsonl={"persistentVolumeClaim": {**VOLUME, "path": "asks/*.jsonl"}}),
    "batch in full": factories.make_batch(sampling={"temperature": 0.7, "stop": ["."]}, limits={"gpuHours": 8}),
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
    "a significance that no test tells": (
        job(
            evaluation={"metrics": ["EvalLoss"], "baselines": ["ZeroShot"]},
            gate={"rules": [{"metric": "EvalLoss", "betterThan": "ZeroShot", "significance": 0.0001}]},
        ),
        "spec.gate.rules[0]",
    ),
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
    "a batch of two models": (
        factories.make_batch(model={"fineTuneJob": {"name": "a"}, "baseModel": HUB}),
        "spec.model",
    ),
    "a batch of a base's digest": (
        factories.make_batch(model={"baseModel": HUB, "digest": factories.digest("a")}),
        "spec.model",
    ),
    "a batch of a job as a base": (
        factories.make_batch(model={"baseModel": {"fineTuneJob": {"name": "a"}}}),
        "spec.model",
    ),
    "a batch of nothing": (asks(), "spec.input"),
    "a batch of two inputs": (asks(dataset={"name": "a"}, jsonl={"inline": {"jsonl": "{}"}}), "spec.input"),
    "a batch of two sources": (
        asks(jsonl={"inline": {"jsonl": "{}"}, "persistentVolumeClaim": VOLUME}),
        "spec.input.jsonl",
    ),
    "a batch of an unknown split": (asks(dataset={"name": "a", "split": "all"}), "spec.input.dataset.split"),
    "a share over one": (factories.make_batch(maxErrorShare=2), "spec.maxErrorShare"),
    "a batch that is cold": (factories.make_batch(sampling={"temperature": -1}), "spec.sampling.temperature"),
    "a misspelt sampling field": (factories.make_batch(sampling={"temprature": 1}), "spec.sampling.temprature"),
}
