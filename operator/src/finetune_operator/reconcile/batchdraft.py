"""The outcome of a BatchInference's pass while it is being decided: starts as the old status, ends as the new."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from finetune_operator.api.base import JobFailure
from finetune_operator.api.batchinference import BatchInference
from finetune_operator.api.batchinferencestatus import (
    BatchAttempt,
    BatchInferenceStatus,
    BatchOutput,
    BatchProgressStatus,
    BatchRun,
)
from finetune_operator.api.figures import CostStatus
from finetune_operator.api.gate import GATE_IGNORED
from finetune_operator.manifests import batch as manifests
from finetune_operator.manifests import staging
from finetune_operator.reconcile import costs
from finetune_operator.reconcile.conditions import ConditionSet
from finetune_operator.reconcile.draft import GATE_FAILED, HISTORY, SUSPENDED
from finetune_operator.reconcile.effects import Effects
from finetune_operator.reconcile.limits import Usage
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import Outcome
from finetune_operator.reconcile.resources import note_denials, stale_children
from finetune_operator.reconcile.storage import note_one_node

MODEL_READY, INPUT_READY = "ModelReady", "InputReady"


@dataclass
class BatchDraft(Effects):
    """Everything that a pass may change."""

    batch: BatchInference
    now: datetime
    run: BatchRun | None
    progress: BatchProgressStatus | None
    attempts: list[BatchAttempt]
    retries_used: int
    stalled_disruptions: int
    failure: JobFailure | None
    used: Usage
    cost: CostStatus | None
    output: BatchOutput | None
    stage_failure: JobFailure | None
    stage_run: str = ""
    """The label of the staging that goes on now; finished ones go."""

    @classmethod
    def of(cls, batch: BatchInference, observed: Observed, now: datetime) -> Self:
        """The status as it is."""
        status = batch.status
        return cls(
            batch=batch,
            metadata=batch.metadata,
            observed=observed,
            now=now,
            conditions=ConditionSet(status.conditions, batch.metadata.generation, now),
            run=status.run,
            progress=status.progress,
            attempts=list(status.attempts),
            retries_used=status.retries_used,
            stalled_disruptions=status.stalled_disruptions,
            failure=status.failure,
            used=Usage(status.seconds_total, status.gpu_seconds_total, costs.amount_in(status.cost)),
            cost=status.cost,
            output=status.output,
            stage_failure=status.stage_failure,
        )

    def is_done(self) -> bool:
        """Whether the present run has its answers: then nothing is asked again."""
        return self.run is not None and self.output is not None and self.output.run == self.run.key

    def latched(self) -> int:
        """The last attempt of the run whose end stands."""
        key = self.run.key[:12] if self.run else ""
        return max((attempt.number for attempt in self.attempts if attempt.run == key), default=0)

    def note(self, attempt: BatchAttempt, used: Usage) -> None:
        """An attempt is over: what it was, and what it has used."""
        before = max((each.rows for each in self.attempts if each.run == attempt.run), default=0)
        spent = {"seconds": round(used.seconds), "gpu_seconds": round(used.gpu_seconds)}
        self.attempts.append(attempt.model_copy(update=spent))
        self.used = self.used.plus(used)
        is_lost = attempt.reason != "Succeeded" and attempt.rows <= before
        self.cost = costs.add(self.cost, used, float(is_lost), self.observed.settings.currency)

    def forget_run(self) -> None:
        """Another run begins; the attempts stay in the list, and the answers of the last one until it has its own."""
        self.retries_used = self.stalled_disruptions = 0
        self.used, self.cost, self.progress, self.failure = Usage(0, 0), None, None, None
        self.conditions.remove("Admitted", "Running", "Complete", "Failed", SUSPENDED, GATE_IGNORED)

    def outcome(self) -> Outcome:
        """The effects of the pass."""
        note_denials(self.conditions, self.observed)
        note_one_node(self.conditions, self.observed)
        status = BatchInferenceStatus(
            observed_generation=self.metadata.generation,
            conditions=self.conditions.to_list(),
            phase=self._phase(),
            progress_percent=f"{self.progress.percent}%" if self.progress else None,
            run=self.run,
            stage_failure=self.stage_failure,
            progress=self.progress,
            attempts=self.attempts[-HISTORY:],
            retries_used=self.retries_used,
            stalled_disruptions=self.stalled_disruptions,
            failure=self.failure,
            seconds_total=round(self.used.seconds),
            gpu_seconds_total=round(self.used.gpu_seconds),
            cost=self.cost,
            output=self.output,
        )
        return Outcome(
            create=self.create,
            status=status.to_dict(),
            delete=self.delete + stale_children(self.observed, self._belongs),
            events=tuple(self.events),
            wake_after=self.wake_after,
        )

    def _belongs(self, role: str, run: str) -> bool:
        """Whether a child belongs to the present run; what another edit left behind is stopped."""
        if role == manifests.ROLE:
            return self.run is None or run == self.run.key[:16]
        return role != staging.ROLE or run == self.stage_run

    def _phase(self) -> str:
        conditions = self.conditions
        if conditions.holds("Complete") and conditions.holds("Ready"):
            return "Succeeded"
        if conditions.holds("Stalled"):
            return GATE_FAILED if conditions.said("Ready")[0] == GATE_FAILED else "Failed"
        if conditions.holds(SUSPENDED):
            return "Suspended"
        if conditions.holds("Running"):
            return self.progress.phase or "Answering" if self.progress else "Starting"
        if not conditions.holds(MODEL_READY):
            return "WaitingForModel"
        if not conditions.holds(INPUT_READY):
            return "WaitingForInput"
        return "Queued" if conditions.denies("Admitted") else "Starting"
