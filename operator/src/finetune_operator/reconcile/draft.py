"""The outcome of a FineTuneJob's pass while it is being decided: what starts as the old status and ends as the new."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from finetune_contract.failure import FailureReason
from finetune_operator.api.base import JobFailure
from finetune_operator.api.exporting import EXPORTED, ExportStatus
from finetune_operator.api.figures import CostStatus, PreflightStatus, ScoreStatus, SpeedStatus, TimingStatus
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import (
    ArtifactStatus,
    Attempt,
    FineTuneJobStatus,
    ProgressStatus,
    Run,
    RunRecord,
)
from finetune_operator.api.gate import GATE_PASSED, GateStatus
from finetune_operator.api.queueing import QueueStatus
from finetune_operator.api.tracking import TrackedRunStatus
from finetune_operator.manifests import evaluating, exporting, preflighting, resolving, staging, training
from finetune_operator.manifests.naming import LABEL_ROLE, LABEL_RUN
from finetune_operator.reconcile import costs, multinode
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.effects import Effects
from finetune_operator.reconcile.endings import label_of
from finetune_operator.reconcile.limits import Usage
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import Outcome
from finetune_operator.reconcile.resources import note_denials, stale_children
from finetune_operator.reconcile.storage import note_one_node

SUSPENDED = "Suspended"
EVALUATED = "Evaluated"
PREFLIGHT_PASSED = "PreflightPassed"
GATE_FAILED = FailureReason.GATE_FAILED.value

HISTORY = 10
"""Entries that lists in status keep: a status that the API server refuses would be a wedge."""


@dataclass
class Draft(Effects):
    """Everything that a pass may change."""

    job: FineTuneJob
    run: Run | None
    runs: list[RunRecord]
    attempts: list[Attempt]
    attempts_total: int
    retries_used: int
    stalled_disruptions: int
    used: Usage
    progress: ProgressStatus | None
    tracking: list[TrackedRunStatus]
    evaluation: list[ScoreStatus]
    timings: list[TimingStatus]
    artifact: ArtifactStatus | None
    gate: GateStatus | None = None
    cost: CostStatus | None = None
    speed: SpeedStatus | None = None
    preflight: PreflightStatus | None = None
    evaluation_key: str | None = None
    evaluation_failure: JobFailure | None = None
    evaluation_run: str | None = None
    """The label of the evaluation that goes on now; finished ones go."""
    exports: list[ExportStatus] = field(default_factory=list)
    export_runs: set[str] = field(default_factory=set)
    """The labels of the exports that go on now, or have failed; finished ones go."""
    export_waits: tuple[str, str] | None = None
    """Reason and message of the one that goes on."""
    queue: QueueStatus | None = None
    stage_failure: JobFailure | None = None
    stage_run: str | None = None
    """The label of the resolution that goes on now; None keeps the finished one."""
    resolve_run: str | None = None
    """The label of the look-up of a lost attempt that goes on now; finished ones go."""

    @classmethod
    def of(cls, job: FineTuneJob, observed: Observed, now: datetime) -> Self:
        """The status as it is."""
        status = job.status
        return cls(
            job=job,
            metadata=job.metadata,
            observed=observed,
            conditions=ConditionSet(status.conditions, job.metadata.generation, now),
            run=status.run,
            runs=list(status.runs),
            attempts=list(status.attempts),
            attempts_total=status.attempts_total,
            retries_used=status.retries_used,
            stalled_disruptions=status.stalled_disruptions,
            used=Usage(status.seconds_total, status.gpu_seconds_total, costs.amount_in(status.cost)),
            cost=status.cost,
            speed=status.speed,
            progress=status.progress,
            tracking=list(status.tracking),
            evaluation=list(status.evaluation),
            evaluation_key=status.evaluation_key,
            timings=list(status.timings),
            artifact=status.artifact,
            gate=status.gate,
            exports=list(status.exports),
            queue=status.queue,
            preflight=status.preflight,
        )

    def latched(self) -> int:
        """The last attempt of the run whose end stands."""
        return max((attempt.number for attempt in self.attempts), default=0)

    def note(self, attempt: Attempt, used: Usage) -> None:
        """An attempt is over: what it was, and what it has used."""
        used_seconds = {"seconds": round(used.seconds), "gpu_seconds": round(used.gpu_seconds)}
        self.attempts.append(attempt.model_copy(update=used_seconds))
        self.attempts_total += 1
        self.used = self.used.plus(used)
        lost = costs.lost_share(attempt, self.progress)
        self.cost = costs.add(self.cost, used, lost, self.observed.settings.currency)
        if self.run is not None and self.run.attempt < attempt.number:
            self.run = self.run.model_copy(update={"attempt": attempt.number})

    def reopen(self, run: Run) -> None:
        """Try a run (again), unless its artifact is at hand: an earlier failure, or a lost success, counts no more."""
        goes_on = self.run is not None and self.run.key == run.key
        self.run = run
        is_current = self.artifact is not None and self.artifact.run == run.key
        if not (self.has_succeeded(run) and (goes_on or is_current)):
            self.runs = [record for record in self.runs if record.key != run.key]
            self.retries_used = self.stalled_disruptions = 0

    def has_succeeded(self, run: Run) -> bool:
        """Whether the run has succeeded and its artifact is at hand: then it never trains again."""
        return self.made_by(run) is not None

    def made_by(self, run: Run) -> ArtifactStatus | None:
        """What the run has made, whatever its gate says of it."""
        record = self.record_of(run)
        if record is None or record.outcome != "Succeeded":
            return None
        is_current = self.artifact is not None and self.artifact.run == run.key
        return record.artifact or (self.artifact if is_current else None)

    def record_of(self, run: Run) -> RunRecord | None:
        """How the run ended, if it has."""
        return next((record for record in reversed(self.runs) if record.key == run.key), None)

    def forget_attempts(self) -> None:
        """Another run begins; artifact and scores of the last one stay until it has its own."""
        self.attempts = []
        self.attempts_total = self.retries_used = self.stalled_disruptions = 0
        self.used = Usage(0, 0)
        self.cost = None
        self.progress = self.queue = self.preflight = None
        self.tracking = []
        self.conditions.remove(
            PREFLIGHT_PASSED, "Admitted", "Running", EVALUATED, GATE_PASSED, EXPORTED, "Complete", "Failed", SUSPENDED
        )
        self.exports = [entry for entry in self.exports if entry.state == "Done"]

    def outcome(self) -> Outcome:
        """The effects of the pass."""
        note_denials(self.conditions, self.observed)
        note_one_node(self.conditions, self.observed)
        status = FineTuneJobStatus(
            observed_generation=self.metadata.generation,
            conditions=self.conditions.to_list(),
            phase=self._phase(),
            progress_percent=f"{self.progress.percent}%" if self.progress else None,
            run=self.run,
            stage_failure=self.stage_failure,
            runs=self.runs[-HISTORY:],
            preflight=self.preflight,
            progress=self.progress,
            tracking=self.tracking,
            attempts=self.attempts[-HISTORY:],
            queue=self.queue,
            attempts_total=self.attempts_total,
            retries_used=self.retries_used,
            stalled_disruptions=self.stalled_disruptions,
            seconds_total=round(self.used.seconds),
            gpu_seconds_total=round(self.used.gpu_seconds),
            cost=self.cost,
            evaluation=self.evaluation,
            evaluation_key=self.evaluation_key,
            evaluation_failure=self.evaluation_failure,
            speed=self.speed,
            timings=self.timings,
            gate=self.gate,
            exports=self.exports,
            artifact=self.artifact,
        )
        return Outcome(
            create=self.create,
            status=status.to_dict(),
            delete=self.delete
            + stale_children(self.observed, self._belongs)
            + multinode.idle_services(self.observed, self.create),
            events=tuple(self.events),
            wake_after=self.wake_after,
        )

    def _belongs(self, role: str, run: str) -> bool:
        """Whether a child belongs to the present run or resolution; what another edit left behind is stopped."""
        if role == training.ROLE:
            return self.run is None or run == self.run.key[:16]
        if role == resolving.ROLE:
            return run == self.resolve_run
        if role == preflighting.ROLE:
            return self.preflight is not None and run == self.preflight.key[:16]
        if role == evaluating.ROLE:
            return run == self.evaluation_run
        if role == exporting.ROLE:
            return run in self.export_runs
        return role != staging.ROLE or run == (self.stage_run or self._last_stage_run() or run)

    def _last_stage_run(self) -> str | None:
        """The label of the resolution that was made last: what an interrupted deletion left of earlier ones goes."""
        made = [item for item in self.observed.of("Job") if label_of(item, LABEL_ROLE) == staging.ROLE]
        return label_of(made[-1], LABEL_RUN) if made else None

    def _phase(self) -> str:
        conditions = self.conditions
        if conditions.holds("Complete") and conditions.holds("Ready"):
            return "Succeeded"
        if conditions.holds("Stalled"):
            return GATE_FAILED if conditions.said("Ready")[0] == GATE_FAILED else "Failed"
        if conditions.holds(SUSPENDED):
            return "Suspended"
        if conditions.holds("Complete") and conditions.denies(EVALUATED):
            return "Evaluating"
        if conditions.holds("Running"):
            return self.progress.phase or "Training" if self.progress else "Loading"
        if not conditions.holds("DatasetReady"):
            return "WaitingForDataset"
        if not conditions.holds("Staged"):
            return "Staging"
        return "Queued" if conditions.denies("Admitted") else "Starting"
