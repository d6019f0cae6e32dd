"""The Job of one attempt at a BatchInference."""

from finetune_contract.base import StoredReference
from finetune_contract.batching import BatchInput, BatchPlan, BatchSampling, DatasetRows
from finetune_contract.datasets import DatasetSource, HttpSource, S3Files
from finetune_contract.paths import ENV_IMAGE, POD_PORT, attempt_name
from finetune_operator.api.batchinference import BatchInference, Requests
from finetune_operator.api.batchinferencestatus import BatchRun
from finetune_operator.manifests import jobs, pods, prices, queues, storage
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.naming import (
    ANNOTATION_ACCELERATORS,
    ANNOTATION_PRICE,
    Manifest,
    child_name,
    labels,
)
from finetune_operator.manifests.training import DEADLINE_SLACK
from finetune_operator.settings import Settings

ROLE = "batch"


def plan(batch: BatchInference, run: BatchRun, number: int, settings: Settings) -> BatchPlan:
    """What the pod of an attempt is asked to do."""
    spec = batch.spec
    return BatchPlan(
        key=run.key,
        attempt=attempt_name(batch.metadata.uid, number),
        name=run.model_name,
        namespace=batch.metadata.namespace,
        base=StoredReference(digest=run.base.digest, uri=run.base.uri),
        adapter=StoredReference(digest=run.adapter.digest, uri=run.adapter.uri) if run.adapter else None,
        input=_input(batch, run),
        sampling=BatchSampling(**spec.sampling.model_dump()),
        max_error_share=spec.max_error_share,
        **dict(storage.plan_of(settings)),
    )


def build(
    batch: BatchInference, run: BatchRun, number: int, settings: Settings, seconds: float | None
) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created.

    Args:
        batch: With its spec as it is now.
        run: What it was resolved to.
        number: Of the attempt.
        settings: With the object's own store.
        seconds: How long it may run before a limit is reached; None: no limit.
    """
    metadata, spec = batch.metadata, batch.spec
    name = child_name(metadata.name, ROLE, run.key[:6], str(number))
    owner = jobs.owner_of("BatchInference", metadata)
    marks = labels(
        "BatchInference", metadata.name, ROLE, run=run.key[:16], attempt=str(number), **storage.mark(settings)
    )
    volumes, mounts = _source_volume(spec.input.jsonl, settings)
    container = pods.container(
        "batch",
        settings.trainer_image,
        ["python", "-m", "finetune_batch"],
        pull_policy=settings.image_pull_policy,
        resources=spec.resources,
        env={**pods.OFFLINE, ENV_IMAGE: settings.trainer_image},
        mounts=(pods.PLAN_MOUNT, pods.STORE, *mounts),
        ports=pods.ports(POD_PORT),
        **_access(spec.input.jsonl, settings),
    )
    pod = pods.pod_spec(
        [container],
        [pods.plan_volume(name), storage.volume(settings), *volumes],
        spec.scheduling,
        **storage.kept_together(settings),
    )
    if seconds is not None:
        pod["activeDeadlineSeconds"] = max(1, round(seconds)) + DEADLINE_SLACK
    wanted = jobs.job(name, pod, marks, owner, spec.pod_template)
    wanted["metadata"]["annotations"][ANNOTATION_ACCELERATORS] = str(accelerators(spec.resources))
    if price := prices.price_of(spec.resources, spec.scheduling, settings):
        wanted["metadata"]["annotations"][ANNOTATION_PRICE] = str(round(price, 6))
    config_map = jobs.plan_config_map(name, plan(batch, run, number, settings), marks, owner)
    return config_map, queues.enqueue(wanted, config_map, spec.scheduling)


def _input(batch: BatchInference, run: BatchRun) -> BatchInput:
    wanted = batch.spec.input
    if wanted.jsonl is not None:
        return BatchInput(jsonl=_source(wanted.jsonl))
    assert wanted.dataset is not None
    assert run.dataset is not None
    revision = StoredReference(digest=run.dataset.digest, uri=run.dataset.uri)
    return BatchInput(dataset=DatasetRows(revision=revision, split=wanted.dataset.split))


def _source(source: Requests) -> DatasetSource:
    if source.inline:
        return DatasetSource(inline=source.inline.jsonl)
    if source.config_map:
        return DatasetSource(files=source.config_map.key)
    if source.http:
        return DatasetSource(http=HttpSource(urls=tuple(source.http.urls), sha256=tuple(source.http.sha256)))
    if source.s3:
        return DatasetSource(s3=S3Files(uri=source.s3.uri, endpoint=source.s3.endpoint, region=source.s3.region))
    assert source.persistent_volume_claim is not None
    return DatasetSource(files=source.persistent_volume_claim.path)


def _source_volume(source: Requests | None, settings: Settings) -> tuple[list[Manifest], tuple[Manifest, ...]]:
    if source and source.config_map:
        return [{"name": "source", "configMap": {"name": source.config_map.name}}], (pods.SOURCE,)
    if source and source.persistent_volume_claim:
        volumes, mount = pods.source_claim(source.persistent_volume_claim.claim_name, storage.claim_name(settings))
        return volumes, (mount,)
    return [], ()


def _access(source: Requests | None, settings: Settings) -> Manifest:
    """Keys of the store and, where the files are in S3, theirs."""
    if source and source.s3 and source.s3.credentials_secret_ref:
        keys = {"secretRef": {"name": source.s3.credentials_secret_ref.name}}
        return {"envFrom": [keys, *storage.credentials(settings)]}
    return storage.access(settings)
