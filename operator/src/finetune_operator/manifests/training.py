"""The Job of one training attempt."""

from finetune_contract.paths import POD_PORT
from finetune_contract.plans import (
    CheckpointPlan,
    EarlyStoppingPlan,
    EvaluationPlan,
    Hyperparameters,
    LoraPlan,
    StoredReference,
    TrainingPlan,
    ValidationPlan,
)
from finetune_operator.api.finetunejob import DEFAULT_LEARNING_RATE, Adapter, AdapterType, FineTuneJob, ValidationSpec
from finetune_operator.api.finetunejobstatus import (
    Run,
)
from finetune_operator.manifests import jobs, pods
from finetune_operator.manifests.naming import Manifest, child_name, labels
from finetune_operator.settings import Settings

ROLE = "train"


def plan(job: FineTuneJob, run: Run, number: int, settings: Settings) -> TrainingPlan:
    """What the pod is asked to do."""
    spec = job.spec
    return TrainingPlan(
        name=job.metadata.name,
        namespace=job.metadata.namespace,
        run_key=run.key,
        attempt=number,
        method=spec.method,
        base=StoredReference(digest=run.inputs.base, uri=run.inputs.base_uri),
        dataset=StoredReference(digest=run.inputs.dataset, uri=run.inputs.dataset_uri),
        adapter=_adapter(spec.adapter),
        hyperparameters=_hyperparameters(job),
        checkpoints=CheckpointPlan(
            interval_minutes=spec.checkpoints.interval_minutes,
            interval_steps=spec.checkpoints.interval_steps,
            keep=spec.checkpoints.keep,
        ),
        validation=_validation(spec.validation),
        evaluation=EvaluationPlan(
            metrics=tuple(spec.evaluation.metrics),
            baselines=tuple(spec.evaluation.baselines),
            split=spec.evaluation.split,
            max_rows=spec.evaluation.max_rows,
            few_shot_examples=spec.evaluation.few_shot_examples,
            max_new_tokens=spec.evaluation.max_new_tokens,
        ),
        truncated_share=spec.limits.truncated_share,
        claim=settings.claim_name,
    )


def job_name(job: FineTuneJob, run_key: str, number: int) -> str:
    """Deterministic: the n-th attempt of one run."""
    return child_name(job.metadata.name, run_key[:6], str(number))


def build(job: FineTuneJob, run: Run, number: int, settings: Settings) -> tuple[Manifest, Manifest]:
    """The plan's ConfigMap and the Job, in the order they are created."""
    metadata = job.metadata
    name = job_name(job, run.key, number)
    owner = jobs.owner_of("FineTuneJob", metadata)
    marks = labels("FineTuneJob", metadata.name, ROLE, run=run.key[:16], attempt=str(number))
    container = pods.container(
        "train",
        settings.trainer_image,
        ["python", "-m", "finetune_trainer", "train"],
        pull_policy=settings.image_pull_policy,
        resources=job.spec.resources,
        env=pods.OFFLINE,
        mounts=(pods.PLAN_MOUNT, pods.STORE, {"name": "shm", "mountPath": "/dev/shm"}),  # noqa: S108 - the mount point
        ports=pods.ports(POD_PORT),
    )
    volumes = [
        pods.plan_volume(name),
        pods.claim_volume("store", settings.claim_name),
        # The container runtime's default of 64 MiB is too small for data loader workers and NCCL.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    pod = pods.pod_spec(
        [container],
        volumes,
        job.spec.scheduling,
        terminationGracePeriodSeconds=job.spec.checkpoints.grace_period_seconds,
    )
    return jobs.plan_config_map(name, plan(job, run, number, settings), marks, owner), jobs.job(name, pod, marks, owner)


def _adapter(adapter: Adapter) -> LoraPlan | None:
    if adapter.type is AdapterType.NONE:
        return None
    modules = adapter.target_modules
    return LoraPlan(
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        target_modules="all-linear" if modules == ["all-linear"] else tuple(modules),
    )


def _validation(spec: ValidationSpec) -> ValidationPlan:
    early = spec.early_stopping
    return ValidationPlan(
        interval_steps=spec.interval_steps,
        max_rows=spec.max_rows,
        keep_best=spec.keep_best,
        early_stopping=EarlyStoppingPlan(patience=early.patience, min_delta=early.min_delta) if early else None,
    )


def _hyperparameters(job: FineTuneJob) -> Hyperparameters:
    spec = job.spec.hyperparameters
    return Hyperparameters(
        epochs=spec.epochs,
        learning_rate=spec.learning_rate or DEFAULT_LEARNING_RATE[job.spec.adapter.type],
        global_batch_size=spec.global_batch_size,
        micro_batch_size=spec.micro_batch_size,
        max_length=None if isinstance(spec.max_length, str) else spec.max_length,
        packing=spec.packing,
        warmup_steps=spec.warmup_steps,
        scheduler=spec.scheduler.value,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        seed=spec.seed,
    )
