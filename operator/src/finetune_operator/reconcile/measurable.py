"""Whether what `spec.evaluation` asks for can be measured, as far as it can be known before a pod runs."""

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import Baseline, EvaluationPlan
from finetune_contract.metrics import broken_settings, unfit_metrics
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.manifests import measuring
from finetune_operator.reconcile.observed import Observed, Reference

METRIC_UNFIT = "MetricUnfit"
"""The reason where a metric and the dataset's rows, or its own settings, do not go together."""


def unmeasurable(job: FineTuneJob, observed: Observed) -> str | None:
    """What cannot be measured and what to do about it; None where nothing speaks against it yet."""
    broken = broken_settings(EvaluationPlan(**measuring.settings(job.spec.evaluation)))
    if broken:
        return broken
    dataset = observed.references.get(Reference("Dataset", job.spec.dataset.name))
    prepare = ((dataset or {}).get("spec") or {}).get("prepare") or {}
    if dataset and Baseline.ORIGINAL_PROMPT in job.spec.evaluation.baselines and not prepare.get("stripInstructions"):
        return (
            f"spec.evaluation.baselines: OriginalPrompt is for rows whose instruction was cut off, and Dataset "
            f"{job.spec.dataset.name!r} has no spec.prepare.stripInstructions: true; leave OriginalPrompt out"
        )
    revision = ((dataset or {}).get("status") or {}).get("revision") or {}
    row_format = revision.get("format")
    # A word of another release is for the trainer to judge.
    if row_format not in list(RowFormat):
        return None
    return unfit_metrics(job.spec.evaluation.metrics, RowFormat(row_format))
