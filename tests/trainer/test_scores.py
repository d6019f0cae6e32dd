"""Measures agree with scikit-learn, scipy and rouge-score; intervals and tests with their formulas."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from finetune_contract.evaluating import SMALLEST_P, EvaluationPlan, Metric
from finetune_trainer.evaluate.answered import confusion_of, measure_answers
from finetune_trainer.evaluate.measures import OTHER, Mean
from finetune_trainer.evaluate.scores import score

LABELS = ("animal", "fruit", "metal")
WANTED = EvaluationPlan()


def value(metric: Metric, answers: list[str], truth: list[str]) -> float:
    measure = measure_answers(metric, WANTED, answers, truth, LABELS)
    assert measure is not None
    return float(measure.of(measure.rows))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, "stone", ""])), min_size=2, max_size=40))
def test_label_metrics_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    truth, said = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    named = [each if each in LABELS else OTHER for each in said]
    assert value(Metric.ACCURACY, said, truth) == pytest.approx(accuracy_score(truth, named))
    macro = f1_score(truth, named, labels=sorted(set(truth)), average="macro", zero_division=0)
    assert value(Metric.MACRO_F1, said, truth) == pytest.approx(macro)
    if len({*truth, *named}) > 1:
        assert value(Metric.COHEN_KAPPA, said, truth) == pytest.approx(cohen_kappa_score(truth, named))


def test_resampled_label_metrics_are_those_of_the_resampled_rows() -> None:
    pick = np.random.default_rng(0)
    truth = [LABELS[at] for at in pick.integers(0, 3, 50)]
    said = [LABELS[at] for at in pick.integers(0, 3, 50)]
    for metric in (Metric.MACRO_F1, Metric.COHEN_KAPPA):
        measure = measure_answers(metric, WANTED, said, truth, LABELS)
        assert measure is not None
        picks = pick.integers(0, 50, (20, 50))
        many = measure.of(measure.rows[picks], picks)
        one_by_one = [value(metric, [said[at] for at in row], [truth[at] for at in row]) for row in picks]
        assert many == pytest.approx(one_by_one)


def test_a_confusion_has_a_column_for_answers_that_are_no_label() -> None:
    found = confusion_of("Tuned", ["fruit", "stone", " metal\n"], ["fruit", "fruit", "metal"], LABELS)
    assert found.labels == ("fruit", "metal", "animal", OTHER)
    assert found.table == ((1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("metric", "answer", "reference", "expected"),
    [
        (Metric.TOKEN_F1, "the cat sat", "The cat sat on the mat", 2 * (3 / 3) * (3 / 6) / (3 / 3 + 3 / 6)),
        (Metric.TOKEN_F1, "größer", "Größer!", 1.0),
        (Metric.TOKEN_F1, "", "x", 0.0),
        (Metric.ROUGE_L, "the gunman killed police", "police killed the gunman", 0.5),
        (Metric.ROUGE_L, "police kill the gunman", "police killed the gunman", 0.75),
        (Metric.EXACT_MATCH, " a b\n", "a b", 1.0),
        (Metric.EXACT_MATCH, "a  b", "a b", 0.0),
    ],
)
def test_answers_are_graded(metric: Metric, answer: str, reference: str, expected: float) -> None:
    """ROUGE-L's cases are those of Lin (2004), section 3.1."""
    assert value(metric, [answer], [reference]) == pytest.approx(expected)


def test_rouge_is_that_of_rouge_score_on_ascii() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [("A cat, on 2 mats.", "a cat sat on 3 mats"), ("nothing alike", "wholly different"), ("x y z", "z y x")]
    theirs = RougeScorer(["rouge1", "rougeL"])
    for answer, reference in pairs:
        expected = theirs.score(reference, answer)
        assert value(Metric.TOKEN_F1, [answer], [reference]) == pytest.approx(expected["rouge1"].fmeasure)
        assert value(Metric.ROUGE_L, [answer], [reference]) == pytest.approx(expected["rougeL"].fmeasure)


def test_form_is_checked_as_it_is_asked_for() -> None:
    wanted = EvaluationPlan(pattern="^[A-Z]{2}-", json_schema='{"type": "object", "required": ["id"]}')
    answers = ["AB-1", "ab-1", '{"id": 1}', "{}", "[1"]
    for metric, expected in ((Metric.REGEX_MATCH, [1, 0, 0, 0, 0]), (Metric.JSON_SCHEMA_VALID, [0, 0, 1, 0, 0])):
        measure = measure_answers(metric, wanted, answers, [""] * 5, ())
        assert measure is not None
        assert measure.rows.tolist() == expected


def test_a_loss_is_weighted_by_tokens_and_perplexity_is_its_exponential() -> None:
    # Two rows: 2 nats over 1 token, 2 nats over 3 tokens: 1 nat per token, not the mean of 2 and 2/3.
    assert score(Metric.EVAL_LOSS, "Tuned", Mean.over([2.0, 2.0], [1, 3]), 0).value == 1.0
    found = score(Metric.PERPLEXITY, "Tuned", Mean.over([2.0, 2.0], [1, 3], exponential=True), 0)
    assert found.value == pytest.approx(math.e, rel=1e-5)


def test_an_interval_is_the_binomial_one() -> None:
    found = score(Metric.EXACT_MATCH, "Tuned", Mean.over([1.0] * 60 + [0.0] * 40), 0)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert found.value == 0.6
    assert found.low == pytest.approx(0.6 - half, abs=0.03)
    assert found.high == pytest.approx(0.6 + half, abs=0.03)
    assert found == score(Metric.EXACT_MATCH, "Tuned", Mean.over([1.0] * 60 + [0.0] * 40), 0)
    assert score(Metric.EXACT_MATCH, "Tuned", Mean.over([1.0] * 5), 0).low == 1.0


def test_an_interval_that_overflows_has_no_end() -> None:
    found = score(Metric.PERPLEXITY, "Tuned", Mean.over([0.1] * 20 + [10_000.0], exponential=True), 0)
    assert found.high is None


def test_a_difference_is_paired() -> None:
    """Rows on which both are alike say nothing; two systems that differ on one row of a hundred differ for sure."""
    easy = [float(at % 2) for at in range(100)]
    ours = Mean.over([*easy[:90], *[1.0] * 10])
    theirs = Mean.over([*easy[:90], *[0.0] * 10])
    found = score(Metric.EXACT_MATCH, "ZeroShot", theirs, 0, ours)
    assert found.difference == pytest.approx(0.1)
    assert found.difference_low is not None
    assert 0.03 < found.difference_low < 0.1
    assert found.p_value == pytest.approx(2 * 0.5**10, rel=1e-4)  # McNemar's: ten rows, all of one mind
    unpaired = (found.high or 0) - (found.low or 0)
    assert (found.difference_high or 0) - found.difference_low < unpaired


@pytest.mark.parametrize("shift", [0.0, 0.2], ids=["alike", "better"])
def test_losses_are_compared_by_exchanging_rows(shift: float) -> None:
    noise = np.random.default_rng(0).normal(1.0, 0.3, (2, 60))
    ours, theirs = Mean.over(noise[0]), Mean.over(noise[1] + shift)
    found = score(Metric.EVAL_LOSS, "ZeroShot", theirs, 0, ours)
    assert found.p_value is not None
    assert (found.p_value < 0.01) == (shift > 0)


def test_no_smaller_p_value_is_told_than_gates_may_ask_of_such_metrics() -> None:
    ours, theirs = Mean.over([0.1] * 100), Mean.over([5.0] * 100)
    assert score(Metric.EVAL_LOSS, "ZeroShot", theirs, 0, ours).p_value == SMALLEST_P
    truth = [LABELS[at % 3] for at in range(100)]
    right = measure_answers(Metric.MACRO_F1, WANTED, truth, truth, LABELS)
    wrong = measure_answers(Metric.MACRO_F1, WANTED, ["stone"] * 100, truth, LABELS)
    assert right is not None
    assert wrong is not None
    assert score(Metric.MACRO_F1, "ZeroShot", wrong, 0, right).p_value == SMALLEST_P


def test_what_is_equal_on_every_row_is_equal() -> None:
    same = Mean.over([0.3, 0.7, 0.1])
    found = score(Metric.TOKEN_F1, "FewShot", same, 0, same)
    assert (found.difference, found.difference_low, found.difference_high, found.p_value) == (0, 0, 0, 1)


def test_labels_are_compared_too() -> None:
    truth = [LABELS[at % 3] for at in range(60)]
    ours = measure_answers(Metric.MACRO_F1, WANTED, truth[:57] + ["stone"] * 3, truth, LABELS)
    theirs = measure_answers(Metric.MACRO_F1, WANTED, ["fruit"] * 60, truth, LABELS)
    assert ours is not None
    assert theirs is not None
    found = score(Metric.MACRO_F1, "ZeroShot", theirs, 0, ours)
    assert found.value == pytest.approx(1 / 6, rel=1e-4)
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert (found.difference_low or 0) > 0.7
