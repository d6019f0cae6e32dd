"""Whether the Dataset's own statistics say that `maxLength` would cut too much: then no training pod is made.

They say so for certain or not at all: the same rows, counted by the tokenizer of the same base, and a method that cuts
rows at their end. What they do not speak of (maxLength Auto, preferences, a base that nobody counted with) is left to
the preflight and to the trainer, which count again.
"""

from pydantic import ValidationError

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.methods import Method
from finetune_operator.api.cleaning import Cut
from finetune_operator.api.datasetstatus import Revision
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import Run
from finetune_operator.reconcile.observed import Observed, Reference

_CUTTING = (Method.SFT,)
"""Methods whose loss of tokens is what the statistics count: text is split, pairs are counted with both answers."""


def refusal(job: FineTuneJob, run: Run, observed: Observed) -> Failure | None:
    """DataTruncated where the run's rows are known to lose more than the limit; None where that is not known."""
    length = job.spec.hyperparameters.max_length
    if job.spec.method not in _CUTTING or not isinstance(length, int):
        return None
    revision = _measured(job, run, observed)
    train = next((split for split in revision.splits if split.name == "train"), None) if revision else None
    if revision is None or train is None or train.tokens is None or not train.tokens.total:
        return None
    cut = _at_least(revision.truncation, length)
    allowed = job.spec.limits.truncated_share
    if cut is None or cut.tokens <= allowed * train.tokens.total:
        return None
    share = cut.tokens / train.tokens.total
    least = "" if cut.max_length == length else "at least "
    message = (
        f"spec.hyperparameters.maxLength: {length} tokens would cut {least}{cut.tokens} of {train.tokens.total} tokens "
        f"({share:.1%}) in {least}{cut.rows} rows; limits.truncatedShare allows {allowed:.1%}. The longest row has "
        f"{train.tokens.max} tokens (counted when Dataset {job.spec.dataset.name!r} was read). "
        f"{policy_of(FailureReason.DATA_TRUNCATED).remedy}"
    )
    return Failure(reason=FailureReason.DATA_TRUNCATED, message=message)


def _measured(job: FineTuneJob, run: Run, observed: Observed) -> Revision | None:
    """The run's revision with what was counted of it by its base's tokenizer."""
    dataset = observed.references.get(Reference("Dataset", job.spec.dataset.name))
    found = ((dataset or {}).get("status") or {}).get("revision") or {}
    # The Dataset may have moved on since the run took its inputs, or count with the tokenizer of another model.
    if found.get("digest") != run.inputs.dataset or found.get("tokenizer") != run.inputs.base:
        return None
    try:
        return Revision.model_validate(found)
    except ValidationError:
        # Of another release: the trainer counts again.
        return None


def _at_least(cuts: list[Cut], length: int) -> Cut | None:
    """What a maxLength cuts at least: a longer one cuts no more, so the next that was counted is the lower bound."""
    return min((cut for cut in cuts if cut.max_length >= length), key=lambda cut: cut.max_length, default=None)
