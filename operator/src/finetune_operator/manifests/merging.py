"""The Job that merges an adapter into its base, for a ModelDeployment: on a CPU, with the trainer's image."""

from finetune_contract.exporting import MergePlan
from finetune_contract.paths import ENV_IMAGE
from finetune_operator.api.base import Resources, Scheduling
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.manifests import jobs, pods, storage
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "merge"


def build(deployment: ModelDeployment, plan: MergePlan, number: int, settings: Settings) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created."""
    metadata, spec = deployment.metadata, deployment.spec
    name = child_name(metadata.name, ROLE, plan.key[:6], str(number))
    owner = jobs.owner_of("ModelDeployment", metadata)
    marks = labels(
        "ModelDeployment", metadata.name, ROLE, run=plan.key[:16], attempt=str(number), **storage.mark(settings)
    )
    container = pods.container(
        "merge",
        settings.trainer_image,
        ["python", "-m", "finetune_trainer", "merge"],
        pull_policy=settings.image_pull_policy,
        # As serving, which holds the same weights; no devices.
        resources=Resources(
            requests={name: value for name, value in spec.resources.requests.items() if "/" not in name},
            limits={name: value for name, value in spec.resources.limits.items() if "/" not in name},
        ),
        env={**pods.OFFLINE, ENV_IMAGE: settings.trainer_image},
        mounts=(pods.PLAN_MOUNT, pods.STORE),
        **storage.access(settings),
    )
    pod = pods.pod_spec(
        [container],
        [pods.plan_volume(name), storage.volume(settings)],
        Scheduling(tolerations=spec.scheduling.tolerations),
        **storage.kept_together(settings),
    )
    return jobs.plan_config_map(name, plan, marks, owner), jobs.job(name, pod, marks, owner, spec.pod_template)
