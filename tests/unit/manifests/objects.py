"""Every object that the operator makes, built from objects as users write them."""

from collections.abc import Callable, Iterator
from typing import Any

from finetune_contract.adapterfacts import AdapterFacts
from finetune_contract.exporting import Cost, MergePlan
from finetune_contract.serving import EngineType, ServedAdapter
from finetune_contract.staging import RunIngredients
from finetune_operator.api.base import BaseStatus
from finetune_operator.api.batchinference import BatchInference
from finetune_operator.api.batchinferencestatus import BatchRun
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import (
    ResolvedInputs,
    Run,
)
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import (
    batch,
    collection,
    dataset,
    evaluating,
    exporting,
    extras,
    jobs,
    merging,
    preflighting,
    resolving,
    serving,
    staging,
    storage,
    training,
)
from finetune_operator.settings import Settings
from tests import factories
from tests.factories import NOW, Object, digest, stored

SETTINGS = Settings(operator_image="operator:1", trainer_image="trainer:1")

KEY = "3f9c1a" + "0" * 58

LONG = "a" + "b" * 62

RESOURCES = {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"nvidia.com/gpu": 1}}

PLACE = {
    "nodeSelector": {"gpu": "h200"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "batch",
}
TEMPLATE: Object = {
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
    "env": [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "token"}}},
        {"name": "HF_HUB_OFFLINE", "value": "0"},
    ],
    "caBundle": {"name": "corporate-ca", "key": "bundle.pem"},
    "sharedMemory": "1Gi",
    "labels": {"team": "support"},
    "annotations": {"sidecar.istio.io/inject": "false"},
}
SOURCES: dict[str, Object] = {
    "hub": {"huggingFace": {"repo": "org/model", "tokenSecretRef": {"name": "hf", "key": "token"}}},
    "s3": {"s3": {"uri": "s3://bucket/model", "endpoint": "http://s3:9000", "credentialsSecretRef": {"name": "aws"}}},
    "volume": {"persistentVolumeClaim": {"claimName": "files", "path": "base"}},
    "job": {"fineTuneJob": {"name": "first"}},
}
ROWS: dict[str, Object] = {
    "inline": {"inline": {"jsonl": '{"text": "é"}'}},
    "config map": {"configMap": {"name": "rows", "key": "rows.jsonl"}},
    "http": {"http": {"urls": ["https://example.com/a.jsonl"], "sha256": ["0" * 64]}},
    "volume": {"persistentVolumeClaim": {"claimName": "raw", "path": "*.jsonl"}},
}


def prepared(name: str = "tickets", number: int = 1, **spec: Any) -> tuple[Object, Object]:
    resource = Dataset.model_validate(factories.make_dataset(name, resources=RESOURCES, scheduling=PLACE, **spec))
    return dataset.build(resource, KEY, number, SETTINGS)


def trained(name: str = "triage", number: int = 1, **spec: Any) -> tuple[Object, ...]:
    job = FineTuneJob.model_validate(factories.make_job(name, resources=RESOURCES, scheduling=PLACE, **spec))
    base, data = stored("b"), stored("d", "datasets")
    inputs = ResolvedInputs(dataset=data.digest, dataset_uri=data.uri, base=base.digest, base_uri=base.uri)
    run = Run(key=KEY, number=1, stage="s", started_at=NOW, inputs=inputs)
    return training.build(job, run, number, SETTINGS)


def staged(source: str = "hub", name: str = "triage", number: int = 1) -> tuple[Object, Object]:
    job = FineTuneJob.model_validate(factories.make_job(name, baseModel=SOURCES[source], scheduling=PLACE))
    return staging.build(
        jobs.owner_of("FineTuneJob", job.metadata),
        job.spec.base_model,
        key=KEY,
        number=number,
        stored=stored("e"),
        run=RunIngredients(train_fields={}, dataset=digest("d")),
        scheduling=job.spec.scheduling,
        template=job.spec.pod_template,
        settings=SETTINGS,
    )


def resolved() -> tuple[Object, Object]:
    job = FineTuneJob.model_validate(factories.make_job("triage", scheduling=PLACE))
    return resolving.build(job, KEY, KEY, 1, SETTINGS)


def preflown() -> tuple[Object, Object]:
    job = FineTuneJob.model_validate(factories.make_job("triage", resources=RESOURCES, scheduling=PLACE))
    inputs = ResolvedInputs(dataset=digest("d"), dataset_uri="x", base=digest("b"), base_uri="y")
    run = Run(key=KEY, number=1, stage="s", started_at=NOW, inputs=inputs)
    return preflighting.build(job, preflighting.plan(job, run, SETTINGS), KEY, 1, SETTINGS)


def evaluated() -> tuple[Object, Object]:
    job = FineTuneJob.model_validate(factories.finished_job())
    assert job.status.artifact is not None
    inputs = ResolvedInputs(dataset=digest("d"), dataset_uri="x", base=digest("b"), base_uri="y")
    run = Run(key=KEY, number=1, stage="s", started_at=NOW, inputs=inputs)
    return evaluating.build(job, run, job.status.artifact, KEY, 1, SETTINGS)


def exported(**export: Any) -> tuple[Object, Object]:
    job = FineTuneJob.model_validate(factories.finished_job() | {"spec": factories.make_job(exports=[export])["spec"]})
    assert job.status.artifact is not None
    inputs = ResolvedInputs(dataset=digest("d"), dataset_uri="x", base=digest("b"), base_uri="y")
    run = Run(key=KEY, number=1, stage="s", started_at=NOW, inputs=inputs)
    return exporting.build(job, run, job.status.artifact, job.spec.exports[0], 1, [], Cost(), SETTINGS)


def served(name: str = "support", track: serving.Track = serving.MAIN, **spec: Any) -> tuple[Object, Object, Object]:
    deployment = ModelDeployment.model_validate(factories.make_deployment(name, resources=RESOURCES, **spec))
    adapter = ServedAdapter(name="triage", artifact=stored("a", "artifacts"))
    document = serving.plan(deployment, stored("b"), (adapter,), SETTINGS)
    plan = serving.plan_config_map(deployment, document)
    facts = {"triage": AdapterFacts(rank=16, targets=("q_proj", "v_proj"), family="llama")}
    return (plan, *serving.build(deployment, plan["metadata"]["name"], document, facts, SETTINGS, track))


def merged() -> tuple[Object, Object]:
    deployment = ModelDeployment.model_validate(factories.make_deployment(resources=RESOURCES, adapterMode="Merged"))
    plan = MergePlan(name="support", namespace="team-a", base=stored("b"), artifact=stored("a"), claim="artifacts")
    return merging.build(deployment, plan, 1, SETTINGS)


def beside() -> tuple[Object, ...]:
    deployment = ModelDeployment.model_validate(factories.make_deployment(autoscaling={"maxReplicas": 3}))
    return extras.build(deployment, is_canary_proven=False)


REQUESTS: dict[str, Object] = {
    "dataset": {"dataset": {"name": "tickets"}},
    "inline": {"jsonl": {"inline": {"jsonl": "{}"}}},
    "config map": {"jsonl": {"configMap": {"name": "asks", "key": "asks.jsonl"}}},
    "http": {"jsonl": {"http": {"urls": ["https://example.com/a.jsonl"]}}},
    "volume": {"jsonl": {"persistentVolumeClaim": {"claimName": "raw", "path": "*.jsonl"}}},
    "s3": {"jsonl": {"s3": {"uri": "s3://bucket/asks", "credentialsSecretRef": {"name": "keys"}}}},
}


def batched(**spec: Any) -> tuple[Object, Object]:
    wanted = BatchInference.model_validate(factories.make_batch(resources=RESOURCES, scheduling=PLACE, **spec))
    run = BatchRun(
        key="3f" * 32,
        spec="s",
        started_at=NOW,
        model_name="triage",
        base=BaseStatus(**stored("b").model_dump()),
        adapter=BaseStatus(**stored("a", "artifacts").model_dump()),
        dataset=BaseStatus(**stored("d", "datasets").model_dump()),
    )
    return batch.build(wanted, run, 1, SETTINGS, 60.0)


def collected() -> tuple[Object, Object]:
    claim = storage.claim("team-a", SETTINGS)
    claim["metadata"]["uid"] = "uid-claim"
    return collection.build(claim, 1, ["0" * 12], NOW, 7200.0, SETTINGS)


def every_object() -> Iterator[tuple[str, Object]]:
    for name, rows in ROWS.items():
        yield from ((f"prepare {name} {item['kind']}", item) for item in prepared(source=rows))
    for name in SOURCES:
        yield from ((f"stage {name} {item['kind']}", item) for item in staged(name))
    for name, adapter in {"adapter": {}, "full": {"type": "None"}}.items():
        yield from ((f"train {name} {item['kind']}", item) for item in trained(adapter=adapter))
    yield from ((f"resolve {item['kind']}", item) for item in resolved())
    yield from ((f"preflight {item['kind']}", item) for item in preflown())
    yield from ((f"evaluate {item['kind']}", item) for item in evaluated())
    yield from ((f"export {item['kind']}", item) for item in exported(type="MergedModel"))
    hub = {"repo": "org/tuned", "tokenSecretRef": {"name": "hub", "key": "token"}}
    yield from ((f"push {item['kind']}", item) for item in exported(type="Hub", hub=hub))
    yield from ((f"train nodes {item['kind']}", item) for item in trained(parallelism={"nodes": 2}))
    for engine in EngineType:
        yield from ((f"serve {engine} {item['kind']}", item) for item in served(engine={"type": engine.value}))
    canary = served(track=serving.CANARY, rollout={"canary": {}}, apiKeysSecretRef={"name": "clients", "key": "keys"})
    yield from ((f"canary {item['kind']}", item) for item in canary)
    yield from ((f"merge {item['kind']}", item) for item in merged())
    yield from ((f"beside {item['kind']}", item) for item in beside())
    for name, source in REQUESTS.items():
        yield from ((f"batch {name} {item['kind']}", item) for item in batched(input=source))
    builders: dict[str, Callable[..., tuple[Object, ...]]] = {
        "prepare": prepared,
        "train": trained,
        "serve": served,
        "batch": batched,
    }
    for kind, build in builders.items():
        dressed = build(podTemplate=TEMPLATE)[1]
        yield f"{kind} with a pod template {dressed['kind']}", dressed
    yield from ((f"collect {item['kind']}", item) for item in collected())
    yield "claim", storage.claim("team-a", SETTINGS)
    yield "claim with class", storage.claim("team-a", SETTINGS.model_copy(update={"claim_storage_class": "fast"}))
