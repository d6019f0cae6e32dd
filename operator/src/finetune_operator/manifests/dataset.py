"""The Job that prepares a dataset revision."""

from finetune_contract.base import StoredReference
from finetune_contract.cleaning import CleaningPlan, Filters
from finetune_contract.datasets import (
    DatasetPlan,
    FileSettings,
    FileType,
    HubFiles,
    MixturePart,
    S3Files,
    SourceFormat,
    SplitPlan,
    Teacher,
)
from finetune_contract.datasets import DatasetSource as SourcePlan
from finetune_contract.datasets import HttpSource as HttpPlan
from finetune_contract.paths import ENV_HF_TOKEN
from finetune_operator.api.cleaning import Prepare
from finetune_operator.api.dataset import Dataset, DatasetFormat
from finetune_operator.api.sources import FilesType
from finetune_operator.manifests import jobs, pods, storage
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "prepare"


def plan(
    dataset: Dataset,
    settings: Settings,
    parts: tuple[MixturePart, ...] = (),
    tokenizer: StoredReference | None = None,
) -> DatasetPlan:
    """What the pod is asked to do; `parts` are the revisions that a mixture is made of."""
    spec = dataset.spec
    teacher = spec.license.teacher if spec.license else None
    near = spec.prepare.deduplicate.near
    return DatasetPlan(
        name=dataset.metadata.name,
        namespace=dataset.metadata.namespace,
        source=_source(dataset, parts),
        format=None if spec.format is DatasetFormat.AUTO else SourceFormat(spec.format.value),
        columns=spec.columns,
        exact_duplicates=spec.prepare.deduplicate.exact,
        near_duplicate_similarity=near.similarity if near else None,
        max_bad_rows=spec.prepare.max_bad_rows,
        files=FileSettings(
            type=None if spec.files.type is FilesType.AUTO else FileType(spec.files.type.value),
            delimiter=spec.files.delimiter,
            text_rows=spec.files.text_rows,
        ),
        cleaning=_cleaning(spec.prepare),
        tokenizer=tokenizer,
        split=_split(dataset),
        license=spec.license.spdx if spec.license else None,
        attribution=spec.license.attribution if spec.license else None,
        teacher=Teacher(model=teacher.model, terms=teacher.terms) if teacher else None,
        **dict(storage.plan_of(settings)),
    )


def _cleaning(prepare: Prepare) -> CleaningPlan:
    wanted = prepare.filters
    return CleaningPlan(
        strip_instructions=prepare.strip_instructions,
        filters=Filters(
            min_tokens=wanted.min_tokens, max_tokens=wanted.max_tokens,
            min_characters=wanted.min_characters, max_characters=wanted.max_characters,
            min_words=wanted.min_words, max_words=wanted.max_words, quality=wanted.quality,
        ),
        personal_data=prepare.personal_data,
        regions=tuple(prepare.personal_data_regions),
        decontaminate_ngram=prepare.decontaminate.ngram if prepare.decontaminate else None,
    )  # fmt: skip


def _split(dataset: Dataset) -> SplitPlan:
    """Fractions; a number of rows is one from the first revision on, or rows would change sides as others come."""
    spec = dataset.spec.split
    revision = dataset.status.revision
    known = {split.name: split for split in revision.splits} if revision else {}
    fractions: dict[str, float] = {}
    rows: dict[str, int] = {}
    for name, wanted in (("validation", spec.validation), ("test", spec.test)):
        before = known.get(name)
        if wanted < 1:
            fractions[name] = wanted
        elif before and before.requested == wanted and before.fraction is not None:
            fractions[name] = before.fraction
        else:
            rows[name] = int(wanted)
    return SplitPlan(
        validation=fractions.get("validation", 0.0),
        test=fractions.get("test", 0.0),
        validation_rows=rows.get("validation"),
        test_rows=rows.get("test"),
        seed=spec.seed,
        stratify_by=spec.stratify_by,
    )


def job_name(dataset: Dataset, key: str, number: int) -> str:
    """Deterministic: the same reading tried for the n-th time."""
    return child_name(dataset.metadata.name, "prepare", key[:6], str(number))


def build(
    dataset: Dataset,
    key: str,
    number: int,
    settings: Settings,
    parts: tuple[MixturePart, ...] = (),
    tokenizer: StoredReference | None = None,
) -> tuple[Manifest, Manifest]:
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
        **_secrets(dataset, settings),
    )
    pod = pods.pod_spec(
        [container],
        [pods.plan_volume(name), storage.volume(settings), *volumes],
        dataset.spec.scheduling,
        **storage.kept_together(settings),
    )
    wanted = jobs.job(name, pod, marks, owner, dataset.spec.pod_template)
    return jobs.plan_config_map(name, plan(dataset, settings, parts, tokenizer), marks, owner), wanted


def _source(dataset: Dataset, parts: tuple[MixturePart, ...]) -> SourcePlan:
    source = dataset.spec.source
    if source.mixture:
        return SourcePlan(mixture=parts)
    if source.hugging_face:
        hub = source.hugging_face
        return SourcePlan(hub=HubFiles(repo=hub.repo, config=hub.config, split=hub.split, revision=hub.revision))
    if source.s3:
        return SourcePlan(s3=S3Files(uri=source.s3.uri, endpoint=source.s3.endpoint, region=source.s3.region))
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


def _secrets(dataset: Dataset, settings: Settings) -> Manifest:
    """Keys of the source and of the store."""
    source = dataset.spec.source
    access = storage.access(settings)
    if source.hugging_face and source.hugging_face.token_secret_ref:
        token = source.hugging_face.token_secret_ref
        reference = {"secretKeyRef": {"name": token.name, "key": token.key}}
        return {"extra_env": ({"name": ENV_HF_TOKEN, "valueFrom": reference},), **access}
    if source.s3 and source.s3.credentials_secret_ref:
        keys = {"secretRef": {"name": source.s3.credentials_secret_ref.name}}
        return {"envFrom": [keys, *storage.credentials(settings)]}
    return access
