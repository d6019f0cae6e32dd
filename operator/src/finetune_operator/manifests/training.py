"""The Job of one training attempt."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from finetune_contract.base import StoredReference
from finetune_contract.evaluating import Baseline, EvaluationPlan
from finetune_contract.paths import ENV_IMAGE, POD_PORT
from finetune_contract.results import ArtifactType
from finetune_contract.training import (
    AdapterVariant,
    CheckpointPlan,
    EarlyStoppingPlan,
    Hyperparameters,
    LoraPlan,
    ParallelismPlan,
    TrainingPlan,
    ValidationPlan,
)
from finetune_operator.api.evaluating import EvaluationSpec
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import ArtifactStatus, Run
from finetune_operator.api.training import Adapter, AdapterType, ValidationSpec, default_learning_rate
from finetune_operator.manifests import jobs, measuring, methods, multinode, pods, prices, queues, storage, tracking
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.naming import (
    ANNOTATION_ACCELERATORS,
    ANNOTATION_PRICE,
    MAX_NAME,
    Manifest,
    child_name,
    labels,
)
from finetune_operator.settings import Settings

ROLE = "train"

DEADLINE_SLACK = 120
"""Seconds past a limit after which the kubelet stops the pod by itself, should no operator be there to do it."""


@dataclass(frozen=True)
class Terms:
    """What an attempt gets beside what the spec says, from what the attempts before it have shown."""

    micro_batch_size: int | None = None
    """Sequences per forward pass that may fit; None: as the spec says."""
    seconds: float | None = None
    """How long it may run before a limit is reached; None: no limit."""
    predicted_peak_bytes: int | None = None
    """What a preflight said that it would hold."""


def plan(job: FineTuneJob, run: Run, number: int, settings: Settings, terms: Terms = Terms()) -> TrainingPlan:
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
        **methods.settings(spec, run.inputs),
        hyperparameters=_hyperparameters(job, terms),
        parallelism=ParallelismPlan(
            nodes=spec.parallelism.nodes,
            processes_per_node=multinode.processes(spec.resources),
            strategy=spec.parallelism.strategy,
            timeout_seconds=spec.parallelism.timeout_seconds,
        ),
        checkpoints=CheckpointPlan(
            interval_minutes=spec.checkpoints.interval_minutes,
            interval_steps=spec.checkpoints.interval_steps,
            keep=spec.checkpoints.keep,
        ),
        validation=_validation(spec.validation),
        evaluation=_evaluation(spec.evaluation, run, previous_of(job, run)),
        evaluation_key=evaluation_key(job, run),
        predicted_peak_bytes=terms.predicted_peak_bytes,
        tracking=tracking.plan_of(spec.tracking),
        truncated_share=spec.limits.truncated_share,
        **dict(storage.plan_of(settings)),
    )


def previous_of(job: FineTuneJob, run: Run) -> ArtifactStatus | None:
    """What the baseline Previous is measured with; None where the job does not ask for it, or has none."""
    return run.previous if Baseline.PREVIOUS in job.spec.evaluation.baselines else None


def evaluation_key(job: FineTuneJob, run: Run) -> str:
    """Names what is to be measured; defaults are left out, as in the run's key."""
    wanted = job.spec.evaluation.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if previous := previous_of(job, run):
        wanted["previous"] = previous.digest
    if others := measuring.artifacts(job.spec.evaluation, run.measuring):
        wanted["others"] = {part: other.digest for part, other in others.items()}
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]


def job_name(job: FineTuneJob, run_key: str, number: int) -> str:
    """Deterministic: the n-th attempt of one run."""
    limit = MAX_NAME if job.spec.parallelism.nodes == 1 else multinode.NAME_LIMIT
    return child_name(job.metadata.name, run_key[:6], str(number), limit=limit)


def build(job: FineTuneJob, run: Run, number: int, settings: Settings, terms: Terms = Terms()) -> tuple[Manifest, ...]:
    """The plan's ConfigMap, with several nodes a Service, and the Job, in the order they are created."""
    metadata, nodes = job.metadata, job.spec.parallelism.nodes
    name = job_name(job, run.key, number)
    owner = jobs.owner_of("FineTuneJob", metadata)
    marks = labels("FineTuneJob", metadata.name, ROLE, run=run.key[:16], attempt=str(number), **storage.mark(settings))
    pod = training_pod(
        job,
        name,
        ["python", "-m", "finetune_trainer", "train"],
        settings,
        extra_env=(*(multinode.environment(name) if nodes > 1 else ()), *tracking.environment(job.spec.tracking)),
        ports=pods.ports(POD_PORT),
    )
    if terms.seconds is not None:
        pod["activeDeadlineSeconds"] = max(1, round(terms.seconds)) + DEADLINE_SLACK
    wanted = jobs.job(name, pod, marks, owner, job.spec.pod_template)
    wanted["metadata"]["annotations"][ANNOTATION_ACCELERATORS] = str(accelerators(job.spec.resources))
    price = prices.price_of(job.spec.resources, job.spec.scheduling, settings)
    if price:
        wanted["metadata"]["annotations"][ANNOTATION_PRICE] = str(round(price, 6))
    config_map = jobs.plan_config_map(name, plan(job, run, number, settings, terms), marks, owner)
    if nodes == 1:
        return config_map, queues.enqueue(wanted, config_map, job.spec.scheduling)
    group = queues.enqueue(multinode.indexed(wanted, nodes), config_map, job.spec.scheduling)
    return config_map, multinode.service(wanted), group


def training_pod(
    job: FineTuneJob,
    plan_name: str,
    command: list[str],
    settings: Settings,
    **more: Any,  # noqa: ANN401 - further fields of the container
) -> Manifest:
    """A pod with the trainer's image and the job's resources, that finds its plan, the store and shared memory."""
    container = pods.container(
        command[-1],
        settings.trainer_image,
        command,
        pull_policy=settings.image_pull_policy,
        resources=job.spec.resources,
        env={**pods.OFFLINE, ENV_IMAGE: settings.trainer_image},
        mounts=(pods.PLAN_MOUNT, pods.STORE, pods.SHARED_MEMORY),
        **storage.access(settings),
        **more,
    )
    volumes = [
        pods.plan_volume(plan_name),
        storage.volume(settings),
        # The container runtime's default of 64 MiB is too small for data loader workers and NCCL.
        pods.shared_memory(job.spec.pod_template.shared_memory),
    ]
    measuring.equip(container, volumes, job.spec.evaluation)
    return pods.pod_spec(
        [container],
        volumes,
        job.spec.scheduling,
        **storage.kept_together(settings),
        terminationGracePeriodSeconds=job.spec.checkpoints.grace_period_seconds,
    )


def _adapter(adapter: Adapter) -> LoraPlan | None:
    if adapter.type is AdapterType.NONE:
        return None
    modules = adapter.target_modules
    return LoraPlan(
        variant=AdapterVariant(adapter.type.value),
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        target_modules="all-linear" if modules == ["all-linear"] else tuple(modules),
    )


def _evaluation(spec: EvaluationSpec, run: Run, previous: ArtifactStatus | None) -> EvaluationPlan:
    is_adapter = previous is not None and previous.type is ArtifactType.ADAPTER
    return EvaluationPlan(
        metrics=tuple(spec.metrics),
        baselines=tuple(each for each in spec.baselines if previous or each is not Baseline.PREVIOUS),
        split=spec.split,
        max_rows=spec.max_rows,
        few_shot_examples=spec.few_shot_examples,
        max_new_tokens=spec.max_new_tokens,
        previous=StoredReference(digest=previous.digest, uri=previous.uri) if previous else None,
        previous_base=(
            StoredReference(digest=previous.base.digest, uri=previous.base.uri) if previous and is_adapter else None
        ),
        **measuring.settings(spec),
        **measuring.others(spec, run.measuring),
    )


def _validation(spec: ValidationSpec) -> ValidationPlan:
    early = spec.early_stopping
    return ValidationPlan(
        interval_steps=spec.interval_steps,
        max_rows=spec.max_rows,
        keep_best=spec.keep_best,
        early_stopping=EarlyStoppingPlan(patience=early.patience, min_delta=early.min_delta) if early else None,
    )


def _hyperparameters(job: FineTuneJob, terms: Terms) -> Hyperparameters:
    spec = job.spec.hyperparameters
    return Hyperparameters(
        epochs=spec.epochs,
        learning_rate=spec.learning_rate or default_learning_rate(job.spec.method, job.spec.adapter.type),
        global_batch_size=spec.global_batch_size,
        micro_batch_size=terms.micro_batch_size or spec.micro_batch_size,
        max_length=None if isinstance(spec.max_length, str) else spec.max_length,
        packing=spec.packing,
        warmup_steps=spec.warmup_steps,
        scheduler=spec.scheduler.value,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        seed=spec.seed,
    )
