"""The CPU Job that finds out what a training would take, before it gets a GPU."""

from finetune_contract.preflight import PreflightPlan
from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import Run
from finetune_operator.manifests import devices, jobs, pods, storage, training
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "preflight"

RESOURCES = Resources(requests={"cpu": "500m", "memory": "2Gi"})
"""torch and the libraries take 0.9 GiB; the rest is for the rows that are looked at."""


def plan(job: FineTuneJob, run: Run, settings: Settings) -> PreflightPlan:
    """What the pod is asked."""
    device = devices.device_of(job, settings)
    return PreflightPlan(
        training=training.plan(job, run, 1, settings),
        device=device,
        on_gpu=accelerators(job.spec.resources) > 0,
        others=devices.others(device, settings),
    )


def build(
    job: FineTuneJob, wanted: PreflightPlan, key: str, number: int, settings: Settings
) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created; `key` names what is asked."""
    metadata = job.metadata
    name = child_name(metadata.name, "preflight", key[:6], str(number))
    owner = jobs.owner_of("FineTuneJob", metadata)
    marks = labels("FineTuneJob", metadata.name, ROLE, run=key[:16], attempt=str(number), **storage.mark(settings))
    container = pods.container(
        "preflight",
        settings.trainer_image,
        ["python", "-m", "finetune_trainer", "preflight"],
        pull_policy=settings.image_pull_policy,
        resources=RESOURCES,
        env=pods.OFFLINE,
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
    return jobs.plan_config_map(name, wanted, marks, owner), jobs.job(name, pod, marks, owner, job.spec.pod_template)
