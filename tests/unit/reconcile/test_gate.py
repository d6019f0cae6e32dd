"""The gate's decision: rules and measurements in, outcomes with their numbers out."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_contract.evaluating import TUNED, Baseline, Metric
from finetune_operator.api.figures import ScoreStatus
from finetune_operator.api.gate import Gate, GateRule, RuleOutcome, Verdict
from finetune_operator.reconcile.gate import MESSAGE_LIMIT, Measured, decide, verdict_of

P, F, S = RuleOutcome.PASSED, RuleOutcome.FAILED, RuleOutcome.SKIPPED


def score(metric: str, system: str, value: float, **more: Any) -> ScoreStatus:
    return ScoreStatus(metric=metric, system=system, value=value, rows=100, **more)


SCORES = (
    score("ExactMatch", TUNED, 0.94, low=0.9, high=0.97),
    score("ExactMatch", "ZeroShot", 0.21, difference=0.73, difference_low=0.65, difference_high=0.8, p_value=1e-9),
    score("ExactMatch", "FewShot", 0.89, difference=0.05, difference_low=-0.01, difference_high=0.1, p_value=0.08),
    score("EvalLoss", TUNED, 1.2, low=1.1, high=1.3),
    score("EvalLoss", "ZeroShot", 2.5, difference=-1.3, difference_low=-1.4, difference_high=-1.2, p_value=1e-6),
    score("EvalLoss", "FewShot", 1.1),
)


def one(rule: dict[str, Any], scores: tuple[ScoreStatus, ...] = SCORES, **more: Any) -> tuple[RuleOutcome, str]:
    gate = Gate.model_validate({"rules": [rule]})
    (found,) = decide(gate, Measured(scores, **more))
    return found.outcome, found.message


@pytest.mark.parametrize(
    ("rule", "outcome", "says"),
    [
        pytest.param(
            {"metric": "ExactMatch", "atLeast": 0.9}, P, "ExactMatch 0.94 [0.9, 0.97] is atLeast 0.9", id="at least"
        ),
        pytest.param(
            {"metric": "ExactMatch", "atLeast": 0.95}, F,
            "ExactMatch 0.94 [0.9, 0.97] is not atLeast 0.95", id="too low",
        ),
        pytest.param(
            {"metric": "ExactMatch", "atLeast": 0.94}, P, "ExactMatch 0.94 [0.9, 0.97] is atLeast 0.94", id="just"
        ),
        pytest.param(
            {"metric": "ExactMatch", "atLeast": 0.9400001}, F,
            "ExactMatch 0.94 [0.9, 0.97] is not atLeast 0.9400001", id="nearly",
        ),
        pytest.param({"metric": "EvalLoss", "atMost": 1.5}, P, "EvalLoss 1.2 [1.1, 1.3] is atMost 1.5", id="at most"),
        pytest.param({"metric": "EvalLoss", "atMost": 1}, F, "EvalLoss 1.2 [1.1, 1.3] is not atMost 1", id="too high"),
        pytest.param(
            {"metric": "ExactMatch", "betterThan": "ZeroShot", "by": 0.05}, P,
            "ExactMatch 0.94 is betterThan ZeroShot 0.21: better by 0.73 [0.65, 0.8]", id="better",
        ),
        pytest.param(
            {"metric": "ExactMatch", "betterThan": "FewShot", "by": 0.05}, P,
            "ExactMatch 0.94 is betterThan FewShot 0.89: better by 0.05 [-0.01, 0.1]", id="better by just so much",
        ),
        pytest.param(
            {"metric": "ExactMatch", "betterThan": "FewShot", "by": 0.1}, F,
            "ExactMatch 0.94 is not betterThan FewShot 0.89: better by 0.05 [-0.01, 0.1]; by 0.1 is asked for",
            id="not by so much",
        ),
        pytest.param(
            {"metric": "ExactMatch", "betterThan": "FewShot", "significance": 0.05}, F,
            "ExactMatch 0.94 is not betterThan FewShot 0.89: better by 0.05 [-0.01, 0.1], p 0.08; "
            "significance 0.05 is asked for", id="not significant",
        ),
        pytest.param(
            {"metric": "EvalLoss", "betterThan": "ZeroShot", "by": 1, "significance": 0.05}, P,
            "EvalLoss 1.2 is betterThan ZeroShot 2.5: better by 1.3 [1.2, 1.4], p 1e-06", id="a loss is better below",
        ),
        pytest.param(
            {"metric": "EvalLoss", "betterThan": "FewShot"}, F,
            "EvalLoss 1.2 is not betterThan FewShot 1.1: worse by 0.1", id="a loss is worse above",
        ),
        pytest.param(
            {"metric": "EvalLoss", "notWorseThan": "FewShot", "by": 0.1}, P,
            "EvalLoss 1.2 is notWorseThan FewShot 1.1: worse by 0.1", id="allowed to be worse",
        ),
        pytest.param(
            {"metric": "EvalLoss", "notWorseThan": "FewShot", "by": 0.05}, F,
            "EvalLoss 1.2 is not notWorseThan FewShot 1.1: worse by 0.1; by 0.05 is allowed", id="not so much worse",
        ),
        pytest.param(
            {"metric": "EvalLoss", "betterThan": "FewShot", "significance": 0.05}, F,
            "EvalLoss 1.2 is not betterThan FewShot 1.1: worse by 0.1, with no paired test; "
            "significance 0.05 is asked for", id="no test was made",
        ),
        pytest.param(
            {"metric": "MeanReward", "atLeast": 0}, F,
            "MeanReward atLeast 0: MeanReward of Tuned was not measured: rows of this format, or this method, have no "
            "such number", id="not measured",
        ),
        pytest.param(
            {"metric": "ExactMatch", "notWorseThan": "Previous"}, S,
            "ExactMatch notWorseThan Previous: there is no previous artifact yet", id="no previous",
        ),
    ],
)  # fmt: skip
def test_a_rule_is_told_with_its_numbers(rule: dict[str, Any], outcome: RuleOutcome, says: str) -> None:
    assert one(rule) == (outcome, says)


def test_equal_is_not_worse_and_not_better() -> None:
    scores = (score("ExactMatch", TUNED, 0.5), score("ExactMatch", "ZeroShot", 0.5))
    assert one({"metric": "ExactMatch", "notWorseThan": "ZeroShot"}, scores) == (
        P, "ExactMatch 0.5 is notWorseThan ZeroShot 0.5: equal",
    )  # fmt: skip
    assert one({"metric": "ExactMatch", "betterThan": "ZeroShot"}, scores)[0] is F


def test_without_held_out_rows_nothing_passes() -> None:
    for rule in ({"atLeast": -1e9}, {"atMost": 1e9}, {"notWorseThan": "ZeroShot", "by": 1e9}):
        outcome, message = one({"metric": "EvalLoss", **rule}, (), split="validation")
        assert outcome is F
        assert message.endswith(": nothing was measured, as the Dataset has no validation rows")


def test_a_previous_artifact_that_was_not_measured_fails_its_rule() -> None:
    outcome, message = one({"metric": "ExactMatch", "betterThan": "Previous"}, has_previous=True)
    assert outcome is F
    assert "ExactMatch of Previous was not measured" in message


def test_numbers_that_differ_look_different() -> None:
    scores = (score("ExactMatch", TUNED, 0.899996),)
    assert one({"metric": "ExactMatch", "atLeast": 0.9}, scores)[1] == "ExactMatch 0.899996 is not atLeast 0.9"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_cannot_come_so_far(value: float) -> None:
    with pytest.raises(ValidationError):
        score("ExactMatch", TUNED, value)
    for field in ("atLeast", "atMost", "by"):
        with pytest.raises(ValidationError):
            GateRule.model_validate({"metric": "ExactMatch", field: value})


# --- whatever is measured

finite = st.floats(-1e9, 1e9)
metrics = st.sampled_from(Metric)
baselines = st.sampled_from(Baseline)
rules = st.one_of(
    st.builds(GateRule, metric=metrics, at_least=finite),
    st.builds(GateRule, metric=metrics, at_most=finite),
    st.builds(
        GateRule, metric=metrics, better_than=baselines, by=st.none() | st.floats(0, 1e9),
        significance=st.none() | st.floats(0.001, 0.5),
    ),
    st.builds(GateRule, metric=metrics, not_worse_than=baselines, by=st.none() | st.floats(0, 1e9)),
)  # fmt: skip
scores = st.builds(
    ScoreStatus,
    metric=metrics,
    system=st.sampled_from([TUNED, *Baseline]),
    value=finite,
    low=st.none() | finite,
    high=st.none() | finite,
    difference=st.none() | finite,
    difference_low=st.none() | finite,
    difference_high=st.none() | finite,
    p_value=st.none() | st.floats(0, 1),
)
measured = st.builds(Measured, scores=st.lists(scores, max_size=20), has_previous=st.booleans())


@given(rules=st.lists(rules, min_size=1, max_size=16), measured=measured)
def test_every_rule_has_an_outcome_and_a_message_that_fits(rules: list[GateRule], measured: Measured) -> None:
    found = decide(Gate(rules=rules), measured)
    assert len(found) == len(rules)
    assert all(0 < len(each.message) <= MESSAGE_LIMIT for each in found)
    assert (verdict_of(found) is Verdict.FAILED) == any(each.outcome is F for each in found)
    assert decide(Gate(rules=rules), measured) == found


@given(rule=rules, measured=measured)
def test_what_passes_has_its_numbers_and_what_is_skipped_only_misses_a_previous(
    rule: GateRule, measured: Measured
) -> None:
    (found,) = decide(Gate(rules=[rule]), measured)
    baseline = rule.better_than or rule.not_worse_than
    if found.outcome is P:
        assert measured.of(rule.metric, TUNED)
        assert baseline is None or measured.of(rule.metric, baseline)
    if found.outcome is S:
        assert baseline == Baseline.PREVIOUS
        assert not measured.has_previous


@given(rule=rules, measured=measured, gain=st.floats(0, 1e9))
def test_a_better_model_never_loses_what_a_worse_one_has_passed(
    rule: GateRule, measured: Measured, gain: float
) -> None:
    """By a rule that asks for the good end of a metric: atMost of an ExactMatch asks for the other one."""
    sign = 1 if rule.metric.higher_is_better else -1
    if (rule.at_most is not None and sign > 0) or (rule.at_least is not None and sign < 0):
        return

    def improved(each: ScoreStatus) -> ScoreStatus:
        if each.metric != rule.metric:
            return each
        if each.system == TUNED:
            return each.model_copy(update={"value": each.value + sign * gain})
        moved = None if each.difference is None else each.difference + sign * gain
        return each.model_copy(update={"difference": moved})

    better = Measured([improved(each) for each in measured.scores], measured.split, measured.has_previous)
    (before,), (after,) = decide(Gate(rules=[rule]), measured), decide(Gate(rules=[rule]), better)
    assert before.outcome in (F, after.outcome)


@given(rule=rules, measured=measured, ease=st.floats(0, 1e9))
def test_a_relaxed_rule_never_fails_what_the_stricter_one_has_passed(
    rule: GateRule, measured: Measured, ease: float
) -> None:
    relaxed = rule.model_copy(
        update={
            "at_least": None if rule.at_least is None else rule.at_least - ease,
            "at_most": None if rule.at_most is None else rule.at_most + ease,
            "by": max(0.0, (rule.by or 0) - ease) if rule.better_than else (rule.by or 0) + ease,
            "significance": None,
        }
    )
    (before,), (after,) = decide(Gate(rules=[rule]), measured), decide(Gate(rules=[relaxed]), measured)
    assert before.outcome in (F, after.outcome)
