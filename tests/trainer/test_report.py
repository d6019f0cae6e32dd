"""The page of a run: what is marked, what comes first, what failed."""

import re

import pytest

from finetune_contract.evaluating import Metric, Score
from finetune_contract.failure import Failure, FailureReason
from finetune_trainer.evaluate.record import EndpointUse, EvaluatedRow, Evaluation
from finetune_trainer.evaluate.report import better_of, render, samples
from tests.trainer import tiny
from tests.trainer.conftest import Workshop


def tuned(metric: Metric, value: float) -> Score:
    return Score(metric=metric, system="Tuned", value=value, rows=10)


def baseline(metric: Metric, system: str, value: float, lead: float, p_value: float | None) -> Score:
    return Score(metric=metric, system=system, value=value, rows=10, difference=lead, p_value=p_value)


@pytest.mark.parametrize(
    ("metric", "others", "better"),
    [
        (Metric.ACCURACY, [("ZeroShot", 0.3, 0.001), ("FewShot", 0.1, 0.05)], {"Tuned"}),
        (Metric.ACCURACY, [("ZeroShot", 0.3, 0.001), ("FewShot", 0.1, 0.06)], set()),
        (Metric.ACCURACY, [("ZeroShot", 0.3, 0.001), ("FewShot", -0.1, 0.01), ("gpt", -0.2, 0.01)], {"FewShot", "gpt"}),
        (Metric.EVAL_LOSS, [("ZeroShot", -0.3, 0.001)], {"Tuned"}),
        (Metric.EVAL_LOSS, [("ZeroShot", 0.3, 0.001)], {"ZeroShot"}),
        (Metric.ACCURACY, [("ZeroShot", 0.3, None)], set()),
        (Metric.ACCURACY, [], set()),
    ],
    ids=["than all", "than one for sure", "baselines", "a loss", "a baseline's loss", "no test", "alone"],
)
def test_only_what_is_better_beyond_doubt_is_marked(
    metric: Metric, others: list[tuple[str, float, float | None]], better: set[str]
) -> None:
    scores = [tuned(metric, 0.5), *(baseline(metric, name, 0.5 - lead, lead, p) for name, lead, p in others)]
    assert better_of(metric, scores) == better


def row(number: int, verdicts: dict[str, str] | None = None, **answers: str) -> EvaluatedRow:
    return EvaluatedRow(prompt=f"p{number}", reference="right", answers=answers, verdicts=verdicts or {})


def test_what_was_lost_comes_first_and_what_all_can_do_last() -> None:
    rows = [
        *(row(at, Tuned="right", ZeroShot="right") for at in range(30)),
        *(row(at, Tuned="no", ZeroShot="no", FewShot="nor this") for at in range(30, 60)),
        row(60, Tuned="right", ZeroShot="no", FewShot="right"),
        row(61, Tuned="no", ZeroShot="no", FewShot=" right\n"),
        EvaluatedRow(prompt="p62", reference="x", losses={"Tuned": 1.0}),
    ]
    found = samples(rows)
    assert len(found) == 20
    assert [(each.row.prompt, each.kind) for each in found[:2]] == [
        ("p61", "a baseline is right, the tuned model is wrong"),
        ("p60", "the tuned model is right, a baseline is wrong"),
    ]
    kinds = [each.kind for each in found[2:]]
    assert kinds == sorted(kinds, key=["all answers differ from the reference", "all answers are right"].index)
    assert 8 <= kinds.count("all answers are right") < len(kinds)
    assert found[0].is_right("FewShot")
    assert not found[0].is_right("Tuned")


def test_a_judges_verdicts_are_told_as_such() -> None:
    kinds = [
        each.kind
        for each in samples(
            [
                row(0, {"ZeroShot": "Tie", "FewShot": "Inconsistent"}, Tuned="right"),
                row(1, {"ZeroShot": "Tuned", "FewShot": "Tie"}, Tuned="a"),
                row(2, {"ZeroShot": "Tuned", "FewShot": "Baseline"}, Tuned="a"),
            ]
        )
    ]
    assert kinds == [
        "the judge prefers a baseline's answer",
        "the judge prefers the tuned model's answer",
        "the judge prefers neither",
    ]


def test_the_page_tells_p_values_marks_and_what_failed(workshop: Workshop) -> None:
    plan = workshop.plan(evaluation={"metrics": ["Accuracy", "EvalLoss"], "baselines": ["ZeroShot", "FewShot"]})
    scores = (
        tuned(Metric.ACCURACY, 0.875),
        baseline(Metric.ACCURACY, "ZeroShot", 0.125, 0.75, 0.001),
        baseline(Metric.ACCURACY, "FewShot", 0.25, 0.625, 1e-7),
        tuned(Metric.EVAL_LOSS, 1.25),
        baseline(Metric.EVAL_LOSS, "ZeroShot", 1.5, -0.25, 0.2),
    )
    evaluation = Evaluation(
        split="test",
        scores=scores,
        judge=EndpointUse(requests=12, retries=10, nonsense=3),
        failure=Failure(reason=FailureReason.EVALUATION_FAILED, message="evaluation.judge: <no> verdict"),
    )
    page = render(plan, evaluation, None)
    assert '<span class="better">0.875</span>' in page
    assert '<span class="">1.25</span>' in page
    assert page.count("p ≤ 0.001<") == 2
    marks = re.findall(r'<small class="(\w*)">Tuned . (\w+): ([-+.\d]+)</small>', page)
    assert marks == [("ahead", "ZeroShot", "+0.75"), ("ahead", "FewShot", "+0.625"), ("", "ZeroShot", "-0.25")]
    assert "p = 0.200" in page
    assert "<b>EvaluationFailed</b>: evaluation.judge: &lt;no&gt; verdict" in page
    assert "12 requests, 10 of them again, 3 answers without a verdict" in page


def test_a_run_without_rows_has_a_page(workshop: Workshop) -> None:
    note = "nothing is measured: the dataset has no test rows; give it some with spec.split"
    page = render(tiny.make_plan(workshop.base, workshop.classification), Evaluation(split="test", notes=(note,)), None)
    assert note in page
    assert "<h2>Metrics</h2>" not in page
