"""What becomes of a BatchInference: look up model and rows once, answer them once, keep what came out.

The steps in order: the model is there, staged or made by a FineTuneJob whose gate lets it through; the rows are there;
both are latched with the run's key; attempts are made until one has answered everything or `retries.limit` is used up.
"""

import hashlib
import json
from datetime import datetime
from typing import Any

from finetune_contract.base import StoredReference
from finetune_operator.api.base import BaseStatus
from finetune_operator.api.batchinference import BatchInference
from finetune_operator.api.batchinferencestatus import BatchRun
from finetune_operator.api.gate import GATE_IGNORED
from finetune_operator.manifests import batch as manifests
from finetune_operator.manifests.naming import Manifest
from finetune_operator.reconcile import batchattempts, batchinputs
from finetune_operator.reconcile.batchdraft import INPUT_READY, MODEL_READY, BatchDraft
from finetune_operator.reconcile.batchinputs import Resolved
from finetune_operator.reconcile.draft import SUSPENDED
from finetune_operator.reconcile.endings import finished_at, numbered
from finetune_operator.reconcile.observed import Observed, Reference
from finetune_operator.reconcile.outcome import Event, Outcome
from finetune_operator.reconcile.resources import ACCEPTED, is_deleted, read
from finetune_operator.reconcile.storage import store_reference
from finetune_operator.settings import Settings

_SECRETS = ("tokenSecretRef", "credentialsSecretRef")


def references(raw: Manifest, settings: Settings) -> tuple[Reference, ...]:
    """The store's claim, the model's job or claim, and what the rows come from."""
    return tuple(dict.fromkeys((store_reference(settings), *batchinputs.references(raw.get("spec") or {}))))


def reconcile(raw: Manifest, observed: Observed, now: datetime) -> Outcome:
    """Bring the BatchInference one pass further."""
    batch = read(BatchInference, raw, now)
    if isinstance(batch, Outcome):
        return batch
    if is_deleted(raw):
        return Outcome()
    draft = BatchDraft.of(batch, observed, now)
    draft.conditions.set(ACCEPTED, True, "Accepted")
    if not batch.spec.suspend:
        draft.conditions.remove(SUSPENDED)
    run = batch.status.run
    if run is None or run.spec != spec_key(batch):
        if batch.spec.suspend:
            if run is not None:
                batchattempts.advance(draft, run)
            batchattempts.pause(draft)
            return draft.outcome()
        found = batchinputs.resolve(draft)
        if found is None:
            return draft.outcome()
        run = _begin(draft, found)
    draft.conditions.set(MODEL_READY, True, "Resolved", (run.adapter or run.base).digest)
    draft.conditions.set(INPUT_READY, True, "Resolved", f"revision {run.dataset.digest}" if run.dataset else "files")
    _note_gate(draft, run)
    batchattempts.advance(draft, run)
    return draft.outcome()


def spec_key(batch: BatchInference) -> str:
    """Names what of the spec decides the answers; while it is the same, what was looked up stays."""
    # Defaults are left out: a field that a later release adds must not look everything up again.
    parts = {
        name: _plain(getattr(batch.spec, name).model_dump(mode="json", by_alias=True, exclude_defaults=True))
        for name in ("model", "input", "sampling")
    }
    return _hash({**parts, "rerun": _token(batch)})[:32]


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Without the names of Secrets: another one opens the same door."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in _SECRETS}
    return value


def _token(batch: BatchInference) -> str | None:
    """The word in spec.rerun; one that was removed still stands for the run that it asked for."""
    return batch.spec.rerun or (batch.status.run.rerun if batch.status.run else None)


def _begin(draft: BatchDraft, found: Resolved) -> BatchRun:
    """Latch what was looked up. A run that differs from the last one starts with a clean record."""
    batch, previous = draft.batch, draft.run
    model = batch.spec.model
    name = model.name or (model.fine_tune_job.name if model.fine_tune_job else batch.metadata.name)
    run = BatchRun(
        key=_key(batch, found, name),
        spec=spec_key(batch),
        generation=batch.metadata.generation,
        started_at=draft.now.replace(microsecond=0),
        rerun=_token(batch),
        model_name=name,
        base=_status(found.base),
        adapter=_status(found.adapter) if found.adapter else None,
        dataset=_status(found.dataset) if found.dataset else None,
        verdict=found.verdict,
        gate_ignored=found.gate_ignored,
    )
    if previous is not None and previous.key == run.key:
        draft.failure = None
        draft.retries_used = draft.stalled_disruptions = 0
        return run.model_copy(update={"attempt": previous.attempt})
    if previous is not None:
        _cancel(draft, previous)
    draft.forget_run()
    return run


def _key(batch: BatchInference, found: Resolved, name: str) -> str:
    """All that decides the answers, by content; files' content is the pod's to see."""
    wanted = batch.spec.input
    document = {
        "version": 1,
        "name": name,
        "base": found.base.digest,
        "adapter": found.adapter.digest if found.adapter else None,
        "sampling": batch.spec.sampling.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "dataset": [found.dataset.digest, wanted.dataset.split] if found.dataset and wanted.dataset else None,
        # What is new in the files is seen by a pod, so a word in rerun has to make one.
        "files": [_plain(wanted.jsonl.model_dump(mode="json", by_alias=True, exclude_defaults=True)), _token(batch)]
        if wanted.jsonl
        else None,
    }
    return _hash(document)


def _cancel(draft: BatchDraft, previous: BatchRun) -> None:
    """A run that has not ended makes way for another; what it used is not lost."""
    for attempt in numbered(draft.observed.of("Job"), manifests.ROLE, previous.key):
        if finished_at(attempt.job) is None and attempt.number > draft.latched():
            batchattempts.stop(draft, attempt, "Cancelled", "the edited spec asks for other answers")


def _note_gate(draft: BatchDraft, run: BatchRun) -> None:
    if not run.gate_ignored:
        draft.conditions.remove(GATE_IGNORED)
        return
    message = f"asked by spec.ignoreGate although no gate was passed: {(run.adapter or run.base).digest}"
    if not draft.conditions.holds(GATE_IGNORED):
        draft.events.append(Event("Warning", GATE_IGNORED, message))
    draft.conditions.set(GATE_IGNORED, True, "IgnoreGate", message)


def _status(reference: StoredReference) -> BaseStatus:
    return BaseStatus(digest=reference.digest, uri=reference.uri)


def _hash(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
