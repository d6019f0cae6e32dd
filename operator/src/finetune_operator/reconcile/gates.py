"""What follows from the gate: whether what a run made becomes the job's artifact.

The verdict is latched with the artifact's digest and stands while rules and measurements are the same. An artifact that
has passed once stays the job's: a later edit of the gate marks it, but does not take it away from those who serve it.
"""

import hashlib
import json

from finetune_contract.failure import FailureReason, policy_of
from finetune_operator.api.finetunejobstatus import ArtifactStatus, Run
from finetune_operator.api.gate import GATE_PASSED, Gate, GateStatus, RuleOutcome, Verdict
from finetune_operator.manifests.training import previous_of as previous_measured
from finetune_operator.reconcile import gate as rules
from finetune_operator.reconcile.draft import GATE_FAILED, Draft
from finetune_operator.reconcile.outcome import Event


def has_passed(artifact: ArtifactStatus) -> bool:
    """Whether nothing speaks against it: it has passed its gate, or there was none."""
    return artifact.verdict in (Verdict.PASSED, None)


def previous_of(draft: Draft, key: str) -> ArtifactStatus | None:
    """What a run is compared with that begins (again): the newest good artifact from before it.

    A run that the spec goes back to is judged as it was then, not by what came after it.
    """
    keys = [record.key for record in draft.runs]
    earlier = draft.runs[: keys.index(key)] if key in keys else draft.runs
    current = draft.artifact
    for record in reversed(earlier):
        # A record of an older release has no artifact of its own.
        made = record.artifact or (current if current and current.run == record.key else None)
        if made is not None and has_passed(made):
            return made
    return current if current and current.run not in (key, *keys) else None


def await_measurements(draft: Draft, run: Run) -> None:
    """Until what the gate needs is measured, nothing is decided; without a gate the artifact is the job's at once."""
    if draft.job.spec.gate is None:
        draft.gate = None
        draft.conditions.remove(GATE_PASSED)
        _judge(draft, run, None)
    elif draft.gate is None or not _is_decided(draft, run, draft.job.spec.gate):
        draft.conditions.set(GATE_PASSED, None, "NotMeasured", "decided when spec.evaluation has been measured")


def decide(draft: Draft, run: Run) -> bool:
    """Whether the gate lets the artifact through; everything that is measured is in the draft."""
    gate = draft.job.spec.gate
    if gate is None:
        return True
    if draft.gate is None or not _is_decided(draft, run, gate):
        _decide(draft, run, gate)
    assert draft.gate is not None
    # A run that was left before another one ended, and is come back to, has its verdict still.
    _judge(draft, run, draft.gate.verdict)
    passed = draft.gate.verdict is Verdict.PASSED
    message = _message(draft.gate)
    draft.conditions.set(GATE_PASSED, passed, "GatePassed" if passed else GATE_FAILED, message)
    if not passed:
        draft.conditions.stalled(GATE_FAILED, f"{message}. {policy_of(FailureReason.GATE_FAILED).remedy}")
    return passed


def _decide(draft: Draft, run: Run, gate: Gate) -> None:
    artifact = draft.made_by(run)
    assert artifact is not None
    measured = rules.Measured(
        scores=draft.evaluation,
        split=draft.job.spec.evaluation.split,
        has_previous=previous_measured(draft.job, run) is not None,
    )
    found = rules.decide(gate, measured)
    verdict = rules.verdict_of(found)
    draft.gate = GateStatus(digest=artifact.digest, verdict=verdict, key=_key(draft, gate), rules=found)
    passed = verdict is Verdict.PASSED
    draft.events.append(
        Event("Normal" if passed else "Warning", "GatePassed" if passed else GATE_FAILED, _message(draft.gate)[:1000])
    )


def _judge(draft: Draft, run: Run, verdict: Verdict | None) -> None:
    """Write the verdict beside the artifact; one that nothing speaks against becomes the job's."""
    made = draft.made_by(run)
    assert made is not None
    judged = made.model_copy(update={"verdict": verdict})
    is_current = draft.artifact is not None and (draft.artifact.run, draft.artifact.digest) == (run.key, made.digest)
    if is_current or has_passed(judged):
        draft.artifact = judged
    draft.runs = [
        record.model_copy(update={"artifact": judged}) if record.key == run.key and record.artifact else record
        for record in draft.runs
    ]


def _is_decided(draft: Draft, run: Run, gate: Gate) -> bool:
    made = draft.made_by(run)
    known = draft.gate
    return bool(known and made and (known.digest, known.key) == (made.digest, _key(draft, gate)))


def _key(draft: Draft, gate: Gate) -> str:
    """Names what a decision rests on; defaults are left out, so that a new release decides nothing anew."""
    wanted = gate.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    document = {"gate": wanted, "evaluation": draft.evaluation_key}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _message(gate: GateStatus) -> str:
    """What failed, or if nothing did, all of it."""
    failed = [rule for rule in gate.rules if rule.outcome is RuleOutcome.FAILED]
    return "; ".join(rule.message for rule in failed or gate.rules)
