"""The Job that brings a base model into the store and says which run this is."""

from finetune_contract.base import StoredReference
from finetune_contract.paths import ENV_HF_TOKEN
from finetune_contract.staging import BaseSource, HubModel, RunIngredients, S3Model, StagePlan
from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.api.basemodel import BaseModelSource
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.manifests import jobs, pods, storage
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "stage"

RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"})
"""Copying and hashing files in chunks needs little."""


def source_plan(base: BaseModelSource, stored: StoredReference | None) -> BaseSource:
    """Where the stage pod finds the model; `stored` is the artifact of `base.fineTuneJob`."""
    if base.hugging_face:
        return BaseSource(hub=HubModel(repo=base.hugging_face.repo, revision=base.hugging_face.revision))
    if base.s3:
        return BaseSource(s3=S3Model(uri=base.s3.uri, endpoint=base.s3.endpoint, region=base.s3.region))
    if base.persistent_volume_claim:
        return BaseSource(volume=base.persistent_volume_claim.path)
    assert stored is not None
    return BaseSource(stored=stored)


def job_name(owner: str, key: str, number: int) -> str:
    """Deterministic: the same resolution tried for the n-th time."""
    return child_name(owner, "stage", key[:6], str(number))


def build(
    owner: Manifest,
    base: BaseModelSource,
    *,
    key: str,
    number: int,
    stored: StoredReference | None,
    run: RunIngredients | None,
    adapters: tuple[StoredReference, ...] = (),
    scheduling: Scheduling,
    template: PodTemplate,
    settings: Settings,
) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created."""
    name = job_name(owner["name"], key, number)
    marks = labels(owner["kind"], owner["name"], ROLE, run=key[:16], attempt=str(number), **storage.mark(settings))
    plan = StagePlan(
        name=owner["name"],
        namespace=owner["namespace"],
        source=source_plan(base, stored),
        run=run,
        adapters=adapters,
        **dict(storage.plan_of(settings)),
    )
    source, mounts = _source_volume(base, settings)
    container = pods.container(
        "stage",
        settings.operator_image,
        ["python", "-m", "finetune_store", "stage"],
        pull_policy=settings.image_pull_policy,
        resources=RESOURCES,
        mounts=(pods.PLAN_MOUNT, pods.STORE, *mounts),
        **_secrets(base, settings),
    )
    volumes = [pods.plan_volume(name), storage.volume(settings), *source]
    # A stage pod needs no accelerator, so it does not carry the training pod's node selection, only its tolerations.
    place = Scheduling(tolerations=scheduling.tolerations)
    pod = pods.pod_spec([container], volumes, place, **storage.kept_together(settings))
    return jobs.plan_config_map(name, plan, marks, owner), jobs.job(name, pod, marks, owner, template)


def _source_volume(base: BaseModelSource, settings: Settings) -> tuple[list[Manifest], tuple[Manifest, ...]]:
    if base.persistent_volume_claim is None:
        return [], ()
    volumes, mount = pods.source_claim(base.persistent_volume_claim.claim_name, storage.claim_name(settings))
    return volumes, (mount,)


def _secrets(base: BaseModelSource, settings: Settings) -> Manifest:
    access = storage.access(settings)
    if base.hugging_face and base.hugging_face.token_secret_ref:
        token = base.hugging_face.token_secret_ref
        reference = {"secretKeyRef": {"name": token.name, "key": token.key}}
        return {"extra_env": ({"name": ENV_HF_TOKEN, "valueFrom": reference},), **access}
    if base.s3 and base.s3.credentials_secret_ref:
        source = {"secretRef": {"name": base.s3.credentials_secret_ref.name}}
        return {"envFrom": [source, *storage.credentials(settings)]}
    return access
