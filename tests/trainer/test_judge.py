"""A judge's verdicts: what is asked, what is counted, what fails. Against real HTTP servers."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from finetune_contract.evaluating import JudgePlan, Metric
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_JUDGE_KEY
from finetune_trainer.evaluate import judge
from finetune_trainer.evaluate.asking import Endpoint
from finetune_trainer.evaluate.judge import length_controlled, outcome, prompt_hash, question
from finetune_trainer.evaluate.verdicts import Verdict, verdict_in
from finetune_trainer.train.render import Example
from tests.trainer import runs
from tests.trainer.answering import Answer, Server, answering
from tests.trainer.conftest import Workshop
from tests.trainer.judging import judged_by


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(Endpoint, "_first_wait", 0.001)
    with answering() as found:
        yield found


TEMPLATE = "{prompt}|{reference}|A={a}|B={b}"


def plan_for(server: Server, **changes: Any) -> JudgePlan:
    document = {"endpoint": server.url, "model": "judge-1", "prompt_template": TEMPLATE, "retries": 2, **changes}
    return JudgePlan(**document)


def examples(count: int) -> list[Example]:
    return [Example(prompt=f"p{at}", completion=f"r{at}", answer=f"r{at}") for at in range(count)]


def prefers(word: str) -> Callable[[int, str], Answer]:
    """A judge that likes answers with a word in them, wherever they stand."""

    def answer(_: int, prompt: str) -> Answer:
        first, second = prompt.split("|")[2:]
        if (word in first) == (word in second):
            return 200, "Both are alike. [[C]]", {}
        return 200, f"I looked at [[B]] and [[A]] for long. [[{'A' if word in first else 'B'}]]", {}

    return answer


def test_wins_losses_and_ties_are_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_JUDGE_KEY, "secret")
    server.answer = prefers("good")
    ours = ["good"] * 6 + ["bad"] * 2 + ["good x", "same"]
    theirs = ["bad"] * 6 + ["good"] * 2 + ["good y", "same"]
    found, use = judged_by(plan_for(server), examples(10), {"Tuned": ours, "ZeroShot": theirs})
    (judgement,) = found.judgements
    assert (judgement.wins, judgement.losses, judgement.ties, judgement.inconsistent) == (6, 2, 2, 0)
    assert judgement.win_rate == pytest.approx(0.7)
    tuned, baseline = found.scores
    assert (tuned.system, baseline.system) == ("Tuned", "ZeroShot")
    assert [tuned.value, baseline.value] == pytest.approx([0.7, 0.3])
    assert baseline.difference == pytest.approx(0.4)
    assert use.requests == 18  # equal answers are not asked about
    assert set(server.keys) == {"Bearer secret"}
    assert {body["model"] for body in server.seen} == {"judge-1"}
    assert {body["temperature"] for body in server.seen} == {0}


def test_a_judge_that_looks_only_at_the_order_decides_nothing(server: Server) -> None:
    server.answer = lambda _number, _prompt: (200, "A", {})
    found, _ = judged_by(plan_for(server), examples(4), {"Tuned": ["x"] * 4, "ZeroShot": ["y"] * 4})
    assert found.judgements[0].inconsistent == 4
    assert found.scores[0].value == 0.5
    assert found.words == {"ZeroShot": ["Inconsistent"] * 4}


def test_too_many_requests_errors_and_nonsense_are_asked_again_and_counted(server: Server) -> None:
    well = prefers("good")
    bad: dict[int, Answer] = {
        1: (429, "slow down", {"retry-after": "0.01"}),
        2: (503, "busy", {}),
        4: (200, "Who can say?", {}),
        5: (200, "", {}),
    }
    server.answer = lambda number, prompt: bad.get(number) or well(number, prompt)
    plan = plan_for(server, concurrency=1)
    found, use = judged_by(plan, examples(2), {"Tuned": ["good"] * 2, "ZeroShot": ["bad"] * 2})
    assert found.judgements[0].wins == 2
    assert (use.requests, use.retries, use.nonsense) == (8, 4, 2)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param((200, "no idea", {}), "no verdict in 'no idea'", id="nonsense"),
        pytest.param((500, "broken", {}), "HTTP 500: broken", id="error"),
        pytest.param((429, "later", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), "HTTP 429", id="rate limit"),
        pytest.param((401, "who?", {}), "apiKeySecretRef: the key is not accepted", id="key"),
        pytest.param((404, "what?", {}), "knows no model 'judge-1'", id="model"),
    ],
)
def test_a_judge_that_does_not_judge_fails_the_evaluation(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer, says: str
) -> None:
    monkeypatch.setattr("finetune_trainer.evaluate.asking._LONGEST_WAIT", 0.01)
    server.answer = lambda _number, _prompt: answer
    with pytest.raises(FineTuneError, match="the artifact is kept") as caught:
        judged_by(plan_for(server), examples(40), {"Tuned": ["x"] * 40, "ZeroShot": ["y"] * 40})
    assert caught.value.reason is FailureReason.EVALUATION_FAILED
    assert says in str(caught.value)
    assert len(server.seen) < 40  # it is not asked about every row before it is given up


def test_a_judge_that_is_down_or_silent_fails_it_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def silent(_number: int, _prompt: str) -> Answer:
        release.wait(5)
        return 200, "[[A]]", {}

    server.answer = silent
    pair = {"Tuned": ["x"], "ZeroShot": ["y"]}
    with pytest.raises(FineTuneError, match="ReadTimeout"):
        judged_by(plan_for(server, timeout_seconds=0.05, retries=1), examples(1), pair)
    release.set()
    with pytest.raises(FineTuneError, match="ConnectError"):
        judged_by(plan_for(server, endpoint="http://127.0.0.1:9/v1", retries=1), examples(1), pair)


def test_a_judge_that_fails_leaves_all_other_figures_and_what_it_was_asked(workshop: Workshop, server: Server) -> None:
    server.answer = lambda _number, _prompt: (200, "Who can say?", {})
    judged = {"endpoint": server.url, "model": "judge-1", "retries": 1, "concurrency": 1}
    wanted = {"metrics": ["EvalLoss", "JudgeWinRate"], "baselines": ["ZeroShot"], "judge": judged}
    result = runs.run(workshop.store, workshop.plan(evaluation=wanted, hyperparameters={"epochs": 1}))
    assert result.artifact is not None
    assert {(each.metric, each.system) for each in result.evaluation} == {
        (Metric.EVAL_LOSS, "Tuned"), (Metric.EVAL_LOSS, "ZeroShot")
    }  # fmt: skip
    found = runs.evaluation_of(workshop.store)
    assert found.failure is not None
    assert found.failure.reason is FailureReason.EVALUATION_FAILED
    assert "gave no verdict on 2 of 2 rows after 1 retries each" in found.failure.message  # one may fail
    assert found.judge is not None
    assert (found.judge.requests, found.judge.retries, found.judge.nonsense) == (4, 2, 4)
    assert len(server.seen) == 4


def test_a_few_rows_may_stay_without_a_verdict(server: Server) -> None:
    well = prefers("good")
    server.answer = lambda number, prompt: (200, "?", {}) if prompt.startswith("p3|") else well(number, prompt)
    plan = plan_for(server, max_failed_share=0.1)
    found, _ = judged_by(plan, examples(10), {"Tuned": ["good"] * 10, "ZeroShot": ["bad"] * 10})
    assert (found.judgements[0].rows, found.judgements[0].failed) == (9, 1)
    assert found.words["ZeroShot"][3] == judge.FAILED


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("[[A]]", Verdict.A),
        ("[[A]] at first, but then [[B]].", Verdict.B),
        ("[[C]]", Verdict.TIE),
        ("[[tie]]", Verdict.TIE),
        (" b.\n", Verdict.B),
        ("**A**", Verdict.A),
        ("A is a letter", None),
        ("", None),
    ],
)
def test_verdicts_are_read(text: str, verdict: Verdict | None) -> None:
    assert verdict_in(text) is verdict


@pytest.mark.parametrize("first", [*Verdict, None])
@pytest.mark.parametrize("second", [*Verdict, None])
def test_only_a_verdict_that_survives_the_exchange_counts(first: Verdict | None, second: Verdict | None) -> None:
    found = outcome(first, second)
    assert (found == judge.WIN) == ((first, second) == (Verdict.A, Verdict.B))
    assert (found == judge.LOSS) == ((first, second) == (Verdict.B, Verdict.A))
    assert (found == judge.FAILED) == (first is None or second is None)
    assert (found == judge.INCONSISTENT) == (first is second and first in (Verdict.A, Verdict.B))


def test_what_answers_hold_is_not_taken_for_the_template() -> None:
    example = Example(prompt="{a} {b}", completion="", answer="{prompt}")
    assert question(TEMPLATE, example, "{reference}", "{") == "{a} {b}|{prompt}|A={reference}|B={"


def test_a_preference_for_length_is_taken_out() -> None:
    """Longer answers always win, and ours are longer on most rows: at equal length nobody would lead."""
    pick = np.random.default_rng(0)
    lengths = pick.normal(30, 40, 400)
    points = (lengths + pick.normal(0, 15, 400) > 0).astype(float)
    assert points.mean() > 0.7
    assert length_controlled(points.tolist(), lengths.tolist()) == pytest.approx(0.5, abs=0.08)
    fair = pick.integers(0, 4, 400) > 0
    assert length_controlled(fair.astype(float).tolist(), lengths.tolist()) == pytest.approx(0.75, abs=0.06)


def test_the_hash_names_model_prompt_and_settings() -> None:
    one = JudgePlan(endpoint="http://x/v1", model="m")
    changed = [
        one.model_copy(update=change) for change in ({"model": "n"}, {"prompt_template": "?"}, {"max_tokens": 1})
    ]
    assert len({prompt_hash(each) for each in (one, *changed)}) == 4
    assert prompt_hash(one) == prompt_hash(one.model_copy(update={"endpoint": "http://y/v1", "concurrency": 9}))
