"""The gate's decision: rules and measurements in, an outcome with its numbers for each rule out. Pure.

A number that is missing fails its rule: a gate is never passed by absence. The one exception is a comparison with
Previous while there is no previous artifact, which says nothing against the first one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.evaluating import TUNED, Baseline
from finetune_operator.api.figures import ScoreStatus
from finetune_operator.api.gate import Gate, GateRule, RuleOutcome, RuleStatus, Verdict

MESSAGE_LIMIT = 256


@dataclass(frozen=True)
class Measured:
    """What the rules are held against."""

    scores: Sequence[ScoreStatus]
    split: str = "test"
    """The held-out rows that were asked for."""
    has_previous: bool = False
    """Whether the job had an artifact to compare with."""

    def of(self, metric: str, system: str) -> ScoreStatus | None:
        """A system's number."""
        return next((score for score in self.scores if (score.metric, score.system) == (metric, system)), None)


def decide(gate: Gate, measured: Measured) -> list[RuleStatus]:
    """What becomes of each rule."""
    return [_decide(rule, measured) for rule in gate.rules]


def verdict_of(rules: Sequence[RuleStatus]) -> Verdict:
    """Passed if no rule failed."""
    return Verdict.FAILED if any(rule.outcome is RuleOutcome.FAILED for rule in rules) else Verdict.PASSED


def _decide(rule: GateRule, measured: Measured) -> RuleStatus:
    baseline = rule.better_than or rule.not_worse_than
    if baseline == Baseline.PREVIOUS and not measured.has_previous:
        return _status(RuleOutcome.SKIPPED, f"{said(rule)}: there is no previous artifact yet")
    tuned = measured.of(rule.metric, TUNED)
    if tuned is None:
        return _missing(rule, TUNED, measured)
    if baseline is None:
        return _bounded(rule, tuned)
    other = measured.of(rule.metric, baseline)
    return _compared(rule, tuned, other) if other else _missing(rule, baseline, measured)


def said(rule: GateRule) -> str:
    """The rule as its YAML has it, on one line."""
    words = [rule.metric.value]
    if rule.at_least is not None:
        words += ["atLeast", f"{rule.at_least:g}"]
    elif rule.at_most is not None:
        words += ["atMost", f"{rule.at_most:g}"]
    else:
        words += ["betterThan" if rule.better_than else "notWorseThan", str(rule.better_than or rule.not_worse_than)]
        words += ["by", f"{rule.by:g}"] if rule.by else []
        words += ["significance", f"{rule.significance:g}"] if rule.significance else []
    return " ".join(words)


def _missing(rule: GateRule, system: str, measured: Measured) -> RuleStatus:
    if not measured.scores:
        why = f"nothing was measured, as the Dataset has no {measured.split} rows"
    else:
        why = f"{rule.metric} of {system} was not measured: rows of this format, or this method, have no such number"
    return _status(RuleOutcome.FAILED, f"{said(rule)}: {why}")


def _bounded(rule: GateRule, tuned: ScoreStatus) -> RuleStatus:
    word, bound = ("atLeast", rule.at_least) if rule.at_least is not None else ("atMost", rule.at_most)
    assert bound is not None, "a CEL rule demands one of four"
    is_met = _reaches(tuned.value, bound) if word == "atLeast" else _reaches(-tuned.value, -bound)
    value, limit = _distinct(tuned.value, bound)
    interval = _interval(tuned.low, tuned.high)
    message = f"{rule.metric} {value}{interval} {'is' if is_met else 'is not'} {word} {limit}"
    return _status(RuleOutcome.PASSED if is_met else RuleOutcome.FAILED, message)


def _compared(rule: GateRule, tuned: ScoreStatus, other: ScoreStatus) -> RuleStatus:
    sign = 1.0 if rule.metric.higher_is_better else -1.0
    # An older trainer leaves the difference to us; the rows are the same.
    lead = sign * (other.difference if other.difference is not None else tuned.value - other.value)
    by = rule.by or 0.0
    is_met = lead > 0 and _reaches(lead, by) if rule.better_than else _reaches(lead, -by)
    is_sure = rule.significance is None or (other.p_value is not None and other.p_value <= rule.significance)
    word = "betterThan" if rule.better_than else "notWorseThan"
    ends = sorted(sign * end for end in (other.difference_low, other.difference_high) if end is not None)
    message = (
        f"{rule.metric} {tuned.value:.4g} {'is' if is_met and is_sure else 'is not'} {word} {other.system} "
        f"{other.value:.4g}: {_lead(lead, by)}{_interval(*ends) if len(ends) == 2 else ''}{_probability(rule, other)}"
    )
    if by and not is_met:
        message += f"; by {by:g} is {'asked for' if rule.better_than else 'allowed'}"
    if not is_sure:
        message += f"; significance {rule.significance:g} is asked for"
    return _status(RuleOutcome.PASSED if is_met and is_sure else RuleOutcome.FAILED, message)


def _lead(lead: float, by: float) -> str:
    if lead == 0:
        return "equal"
    size, _ = _distinct(abs(lead), by)
    return f"{'better' if lead > 0 else 'worse'} by {size}"


def _probability(rule: GateRule, other: ScoreStatus) -> str:
    if rule.significance is None:
        return ""
    if other.p_value is None:
        return ", with no paired test"
    return f", p {_distinct(other.p_value, rule.significance)[0]}"


def _reaches(value: float, bound: float) -> bool:
    """Whether it is so much or more; 0.94 - 0.89 is 0.05 for people, and a little less for a computer."""
    return value >= bound or math.isclose(value, bound, rel_tol=1e-9, abs_tol=1e-12)


def _distinct(value: float, bound: float) -> tuple[str, str]:
    """Both in few digits, but in so many that they look different if they are."""
    for digits in (4, 9):
        texts = f"{value:.{digits}g}", f"{bound:.{digits}g}"
        if texts[0] != texts[1] or value == bound:
            break
    return texts


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"


def _status(outcome: RuleOutcome, message: str) -> RuleStatus:
    return RuleStatus(outcome=outcome, message=message[:MESSAGE_LIMIT])
