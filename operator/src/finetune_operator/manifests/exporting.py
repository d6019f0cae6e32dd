"""The Job that makes one export of a published artifact: on a CPU, with the trainer's image."""

from finetune_contract.base import StoredReference
from finetune_contract.evaluating import Score
from finetune_contract.exporting import Cost, ExportPlan
from finetune_contract.paths import ENV_HF_TOKEN, ENV_IMAGE
from finetune_contract.results import Artifact
from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.api.exporting import Export
from finetune_operator.api.figures import ScoreStatus
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import ArtifactStatus, Run
from finetune_operator.manifests import jobs, pods, queues, storage, training
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "export"


def build(
    job: FineTuneJob,
    run: Run,
    artifact: ArtifactStatus,
    export: Export,
    number: int,
    scores: list[ScoreStatus],
    cost: Cost,
    settings: Settings,
) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created."""
    metadata = job.metadata
    wish = export.settings()
    key = wish.key_for(artifact.digest)
    name = child_name(metadata.name, "export", key[:6], str(number))
    owner = jobs.owner_of("FineTuneJob", metadata)
    marks = labels("FineTuneJob", metadata.name, ROLE, run=key[:16], attempt=str(number), **storage.mark(settings))
    plan = ExportPlan(
        training=training.plan(job, run, number, settings),
        artifact=Artifact(
            digest=artifact.digest,
            uri=artifact.uri,
            type=artifact.type,
            bytes=artifact.bytes,
            base=StoredReference(digest=artifact.base.digest, uri=artifact.base.uri),
        ),
        export=wish,
        evaluation=tuple(Score.model_validate(score.model_dump()) for score in scores),
        cost=cost,
    )
    config_map = jobs.plan_config_map(name, plan, marks, owner)
    wanted = jobs.job(name, _pod(job, name, export, settings), marks, owner, job.spec.pod_template)
    # It asks for the memory that training asks for, so it waits in the same queue.
    return config_map, queues.enqueue(wanted, config_map, job.spec.scheduling)


def _pod(job: FineTuneJob, plan_name: str, export: Export, settings: Settings) -> Manifest:
    container = pods.container(
        "export",
        settings.trainer_image,
        ["python", "-m", "finetune_trainer", "export"],
        pull_policy=settings.image_pull_policy,
        resources=_without_devices(job.spec.resources),
        env={**({} if export.hub else pods.OFFLINE), ENV_IMAGE: settings.trainer_image},
        extra_env=_token(export),
        mounts=(pods.PLAN_MOUNT, pods.STORE),
        **storage.access(settings),
    )
    # Like a stage pod, it needs no accelerator: only the training pod's tolerations.
    return pods.pod_spec(
        [container],
        [pods.plan_volume(plan_name), storage.volume(settings)],
        Scheduling(tolerations=job.spec.scheduling.tolerations),
        **storage.kept_together(settings),
    )


def _without_devices(resources: Resources) -> Resources:
    """CPU, memory and disk as for training, which has held the same weights."""
    return Resources(
        requests={name: value for name, value in resources.requests.items() if "/" not in name},
        limits={name: value for name, value in resources.limits.items() if "/" not in name},
    )


def _token(export: Export) -> tuple[Manifest, ...]:
    if export.hub is None:
        return ()
    token = export.hub.token_secret_ref
    return ({"name": ENV_HF_TOKEN, "valueFrom": {"secretKeyRef": {"name": token.name, "key": token.key}}},)
