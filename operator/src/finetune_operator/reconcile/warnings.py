"""What a run should be looked at for: conditions that do not keep it from being ready."""

from collections.abc import Sequence

from finetune_contract.results import RunWarning, WarningReason
from finetune_operator.reconcile.conditions import ConditionSet


def show(conditions: ConditionSet, warnings: Sequence[RunWarning]) -> None:
    """One condition for each warning, named after it; those of an earlier run or attempt are forgotten."""
    conditions.remove(*(reason.value for reason in WarningReason))
    for warning in warnings:
        conditions.set(warning.reason.value, True, "Observed", warning.message)
