"""Look up whether a run has succeeded: for attempts that nobody saw end, and for resources that lost their status."""

import logging
from typing import TypeVar

from finetune_contract.results import ResolveResult, StageResult
from finetune_contract.staging import ResolvePlan
from finetune_store.edge import fitting
from finetune_store.store import Store

log = logging.getLogger(__name__)

WithOutcome = TypeVar("WithOutcome", StageResult, ResolveResult)


def resolve(plan: ResolvePlan, store: Store) -> ResolveResult:
    """The run's earlier success, if it has one whose artifact is in the store.

    Raises:
        FineTuneError: ContractViolation when another release wrote an outcome that this one cannot read.
    """
    outcome = store.outcome(plan.run_key)
    log.info("run %s %s", plan.run_key[:12], "has succeeded" if outcome else "has not succeeded")
    return cut_to_fit(ResolveResult(outcome=outcome))


def cut_to_fit(result: WithOutcome) -> WithOutcome:
    """Leave out the least of an earlier outcome that a termination message has no room for: its timings."""
    try:
        fitting(result)
    except ValueError:
        assert result.outcome is not None
        return result.model_copy(update={"outcome": result.outcome.model_copy(update={"timings": ()})})
    return result
