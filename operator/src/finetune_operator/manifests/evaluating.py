"""The Job that measures a published artifact anew after an edit of `spec.evaluation`."""

from finetune_contract.base import StoredReference
from finetune_contract.training import ReevaluationPlan
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import ArtifactStatus, Run
from finetune_operator.manifests import jobs, queues, storage, training
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "evaluate"


def build(
    job: FineTuneJob, run: Run, artifact: ArtifactStatus, key: str, number: int, settings: Settings
) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created; `key` names the artifact and what is wanted."""
    metadata = job.metadata
    name = child_name(metadata.name, "evaluate", key[:6], str(number))
    owner = jobs.owner_of("FineTuneJob", metadata)
    marks = labels("FineTuneJob", metadata.name, ROLE, run=key[:16], attempt=str(number), **storage.mark(settings))
    plan = ReevaluationPlan(
        training=training.plan(job, run, number, settings),
        artifact=StoredReference(digest=artifact.digest, uri=artifact.uri),
    )
    pod = training.training_pod(job, name, ["python", "-m", "finetune_trainer", "evaluate"], settings)
    config_map = jobs.plan_config_map(name, plan, marks, owner)
    wanted = jobs.job(name, pod, marks, owner, job.spec.pod_template)
    # It asks for what training asks for, so it waits in the same queue.
    return config_map, queues.enqueue(wanted, config_map, job.spec.scheduling)
