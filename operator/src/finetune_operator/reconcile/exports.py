"""`spec.exports`: what is made of an artifact that its gate lets through, one Job after the other.

An export that fails is named and fails nothing else: the run has succeeded, and the job stays ready.
"""

from dataclasses import dataclass
from datetime import datetime

from finetune_contract.exporting import Cost, ExportResult, ExportType
from finetune_contract.failure import FailureReason
from finetune_contract.results import ArtifactType
from finetune_operator.api.base import JobFailure
from finetune_operator.api.exporting import EXPORTED, Export, ExportStatus
from finetune_operator.api.finetunejobstatus import ArtifactStatus, Run
from finetune_operator.manifests import exporting
from finetune_operator.reconcile import oneshot
from finetune_operator.reconcile.draft import SUSPENDED, Draft
from finetune_operator.reconcile.endings import numbered
from finetune_operator.reconcile.outcome import Event
from finetune_operator.reconcile.resources import seconds_until, with_plan

WAITING, EXPORTING, DONE, FAILED = "Waiting", "Exporting", "Done", "Failed"


@dataclass(frozen=True)
class _Wish:
    """One entry of spec.exports, for one artifact."""

    export: Export
    artifact: ArtifactStatus
    key: str
    path: str
    """Where it stands in the YAML."""


def bring_up_to_date(draft: Draft, run: Run, now: datetime) -> None:
    """See to every export of the run's artifact, at most one Job at a time."""
    wishes = _wishes(draft, run)
    if not wishes:
        draft.exports = []
        draft.conditions.remove(EXPORTED)
        return
    if draft.job.spec.suspend:
        hold(draft, run, SUSPENDED, "spec.suspend is true: exports are made when it goes on")
        return
    known = {entry.key: entry for entry in draft.exports}
    entries: list[ExportStatus] = []
    for wish in wishes:
        may_start = not any(entry.state == EXPORTING for entry in entries)
        entry = known.get(wish.key) or _entry(wish)
        entries.append(entry if entry.state == DONE else _advance(draft, run, wish, entry, now, may_start=may_start))
    draft.exports = entries
    _say(draft, wishes)


def hold(draft: Draft, run: Run, reason: str, message: str) -> None:
    """Nothing is exported for now; what has been made stays."""
    known = {entry.key: entry for entry in draft.exports if entry.state == DONE}
    wishes = _wishes(draft, run)
    draft.exports = [known.get(wish.key) or _entry(wish) for wish in wishes]
    if not wishes:
        draft.conditions.remove(EXPORTED)
    elif len(known) < len(wishes):
        draft.conditions.set(EXPORTED, False, reason, message)


def _wishes(draft: Draft, run: Run) -> list[_Wish]:
    """The entries of spec.exports; of equal ones the first."""
    artifact = draft.made_by(run)
    if artifact is None:
        return []
    found: dict[str, _Wish] = {}
    for number, export in enumerate(draft.job.spec.exports):
        key = export.settings().key_for(artifact.digest)
        found.setdefault(key, _Wish(export, artifact, key, f"spec.exports[{number}]"))
    return list(found.values())


def _entry(wish: _Wish) -> ExportStatus:
    return ExportStatus(name=wish.export.label, key=wish.key, artifact=wish.artifact.digest)


def _advance(
    draft: Draft, run: Run, wish: _Wish, entry: ExportStatus, now: datetime, *, may_start: bool
) -> ExportStatus:
    """Where an export is that has not been made yet."""
    generation = draft.job.metadata.generation
    if settled := _without_a_job(wish, entry, generation):
        return settled
    jobs = numbered(draft.observed.of("Job"), exporting.ROLE, wish.key)
    if not jobs and entry.state == FAILED and entry.generation == generation:
        return entry  # its Job was cleaned up
    draft.export_runs.add(wish.key[:16])
    state = oneshot.state_of(
        draft.observed,
        exporting.ROLE,
        wish.key,
        parse=ExportResult.model_validate_json,
        failure_in=lambda result: result.failure,
        latched=entry.failure,
        generation=generation,
        now=now,
    )
    match state:
        case oneshot.Done(result):
            draft.export_runs.discard(wish.key[:16])
            draft.events.append(Event("Normal", EXPORTED, f"{entry.name}: {result.uri}"[:1000]))
            return _entry(wish).model_copy(
                update={
                    "state": DONE,
                    "digest": result.digest,
                    "uri": result.uri,
                    "bytes": result.bytes,
                    "difference": result.difference,
                }
            )
        case oneshot.GivenUp(failure):
            if entry.state != FAILED:
                draft.events.append(Event("Warning", failure.reason, f"{entry.name}: {failure.message}"[:1000]))
            return _entry(wish).model_copy(update={"state": FAILED, "failure": failure, "generation": generation})
        case oneshot.Working() as working:
            draft.wake(seconds_until([working.until], now))
            draft.export_waits = working.condition(EXPORTING, f"making {entry.name}")
            return _entry(wish).model_copy(update={"state": EXPORTING, "failure": working.failure})
        case oneshot.Outdated(outdated):
            draft.delete += with_plan(draft.observed, outdated)
            return _entry(wish).model_copy(update={"state": EXPORTING})
        case oneshot.Wanted() as wanted:
            return _begin(draft, run, wish, wanted, now, may_start=may_start)


def _begin(
    draft: Draft, run: Run, wish: _Wish, wanted: oneshot.Wanted, now: datetime, *, may_start: bool
) -> ExportStatus:
    draft.wake(oneshot.wait_for(wanted, now))
    entry = _entry(wish).model_copy(update={"failure": wanted.failure})
    if not may_start or not oneshot.is_due(wanted, now):
        return entry
    cost = Cost(seconds=round(draft.used.seconds), gpu_seconds=round(draft.used.gpu_seconds))
    scores, settings = draft.evaluation, draft.observed.settings
    draft.make(exporting.build(draft.job, run, wish.artifact, wish.export, wanted.number, scores, cost, settings))
    return entry.model_copy(update={"state": EXPORTING})


def _without_a_job(wish: _Wish, entry: ExportStatus, generation: int) -> ExportStatus | None:
    """What can be told from the artifact's type alone."""
    artifact, type_ = wish.artifact, wish.export.type
    if artifact.type is ArtifactType.ADAPTER:
        return None
    if type_ is ExportType.MERGED_MODEL:
        made = {"digest": artifact.digest, "uri": artifact.uri, "bytes": artifact.bytes}
        return entry.model_copy(update={"state": DONE, **made})
    if type_ is ExportType.GGUF_ADAPTER:
        message = f"{wish.path}: type GGUFAdapter needs an adapter, and this job made a {artifact.type.value}"
        failure = JobFailure(job="", reason=FailureReason.EXPORT_FAILED.value, message=message)
        return entry.model_copy(update={"state": FAILED, "failure": failure, "generation": generation})
    return None


def _say(draft: Draft, wishes: list[_Wish]) -> None:
    """One condition for all: the first that failed, else what is going on."""
    for wish, entry in zip(wishes, draft.exports, strict=True):
        if entry.state == FAILED and entry.failure:
            message = f"{wish.path} ({entry.name}): {oneshot.explain(entry.failure)}"
            draft.conditions.set(EXPORTED, False, entry.failure.reason, message)
            return
    names = ", ".join(entry.name for entry in draft.exports)
    if all(entry.state == DONE for entry in draft.exports):
        draft.conditions.set(EXPORTED, True, EXPORTED, names)
        return
    done = sum(entry.state == DONE for entry in draft.exports)
    reason, message = draft.export_waits or (EXPORTING, f"{done} of {len(wishes)} are made: {names}")
    draft.conditions.set(EXPORTED, False, reason, message)
