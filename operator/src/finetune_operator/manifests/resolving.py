"""The Job that looks up in the store what became of an attempt that nobody saw end."""

from finetune_contract.staging import ResolvePlan
from finetune_operator.api.base import Scheduling
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.manifests import jobs, pods, storage
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.manifests.staging import RESOURCES
from finetune_operator.settings import Settings

ROLE = "resolve"


def build(job: FineTuneJob, run_key: str, key: str, number: int, settings: Settings) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created; `key` names this look-up."""
    metadata = job.metadata
    name = child_name(metadata.name, "resolve", key[:6], str(number))
    owner = jobs.owner_of("FineTuneJob", metadata)
    marks = labels("FineTuneJob", metadata.name, ROLE, run=key[:16], attempt=str(number), **storage.mark(settings))
    plan = ResolvePlan(
        name=metadata.name, namespace=metadata.namespace, run_key=run_key, **dict(storage.plan_of(settings))
    )
    container = pods.container(
        "resolve",
        settings.operator_image,
        ["python", "-m", "finetune_store", "resolve"],
        pull_policy=settings.image_pull_policy,
        resources=RESOURCES,
        mounts=(pods.PLAN_MOUNT, pods.STORE),
        **storage.access(settings),
    )
    # Like a stage pod, it needs no accelerator: only the training pod's tolerations.
    pod = pods.pod_spec(
        [container],
        [pods.plan_volume(name), storage.volume(settings)],
        Scheduling(tolerations=job.spec.scheduling.tolerations),
        **storage.kept_together(settings),
    )
    wanted = jobs.job(name, pod, marks, owner, job.spec.pod_template)
    return jobs.plan_config_map(name, plan, marks, owner), wanted
