"""The Job that prepares a dataset revision."""

from finetune_contract.datasets import DatasetPlan, SourceFormat, SplitPlan
from finetune_contract.datasets import DatasetSource as SourcePlan
from finetune_contract.datasets import HttpSource as HttpPlan
from finetune_operator.api.dataset import Dataset, DatasetFormat
from finetune_operator.manifests import jobs, pods, storage
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "prepare"


def plan(dataset: Dataset, settings: Settings) -> DatasetPlan:
    """What the pod is asked to do."""
    spec = dataset.spec
    near = spec.prepare.deduplicate.near
    return DatasetPlan(
        name=dataset.metadata.name,
        namespace=dataset.metadata.namespace,
        source=_source(dataset),
        format=None if spec.format is DatasetFormat.AUTO else SourceFormat(spec.format.value),
        columns=spec.columns,
        exact_duplicates=spec.prepare.deduplicate.exact,
        near_duplicate_similarity=near.similarity if near else None,
        max_bad_rows=spec.prepare.max_bad_rows,
        split=SplitPlan(validation=spec.split.validation, test=spec.split.test, seed=spec.split.seed),
        license=spec.license.spdx if spec.license else None,
        **dict(storage.plan_of(settings)),
    )


def job_name(dataset: Dataset, key: str, number: int) -> str:
    """Deterministic: the same reading tried for the n-th time."""
    return child_name(dataset.metadata.name, "prepare", key[:6], str(number))


def build(dataset: Dataset, key: str, number: int, settings: Settings) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created."""
    metadata = dataset.metadata
    name = job_name(dataset, key, number)
    owner = jobs.owner_of("Dataset", metadata)
    marks = labels("Dataset", metadata.name, ROLE, run=key[:16], attempt=str(number), **storage.mark(settings))
    volumes, mounts = _source_volume(dataset, settings)
    container = pods.container(
        "prepare",
        settings.trainer_image,
        ["python", "-m", "finetune_trainer", "prepare"],
        pull_policy=settings.image_pull_policy,
        resources=dataset.spec.resources,
        mounts=(pods.PLAN_MOUNT, pods.STORE, *mounts),
        **storage.access(settings),
    )
    pod = pods.pod_spec(
        [container],
        [pods.plan_volume(name), storage.volume(settings), *volumes],
        dataset.spec.scheduling,
        **storage.kept_together(settings),
    )
    wanted = jobs.job(name, pod, marks, owner, dataset.spec.pod_template)
    return jobs.plan_config_map(name, plan(dataset, settings), marks, owner), wanted


def _source(dataset: Dataset) -> SourcePlan:
    source = dataset.spec.source
    if source.inline:
        return SourcePlan(inline=source.inline.jsonl)
    if source.http:
        return SourcePlan(http=HttpPlan(urls=tuple(source.http.urls), sha256=tuple(source.http.sha256)))
    if source.config_map:
        return SourcePlan(files=source.config_map.key)
    assert source.persistent_volume_claim is not None
    return SourcePlan(files=source.persistent_volume_claim.path)


def _source_volume(dataset: Dataset, settings: Settings) -> tuple[list[Manifest], tuple[Manifest, ...]]:
    source = dataset.spec.source
    if source.config_map:
        return [{"name": "source", "configMap": {"name": source.config_map.name}}], (pods.SOURCE,)
    if source.persistent_volume_claim:
        volumes, mount = pods.source_claim(source.persistent_volume_claim.claim_name, storage.claim_name(settings))
        return volumes, (mount,)
    return [], ()
