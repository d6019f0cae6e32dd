"""Which of two answers a judge prefers, each pair asked in both orders (Zheng et al. 2023)."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from finetune_contract.evaluating import TUNED, EvaluationPlan, JudgePlan, Metric, Score
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_JUDGE_KEY
from finetune_trainer.evaluate.asking import Endpoint, Settings
from finetune_trainer.evaluate.measures import Mean
from finetune_trainer.evaluate.record import Judgement
from finetune_trainer.evaluate.scores import score
from finetune_trainer.evaluate.verdicts import Verdict, verdict_in
from finetune_trainer.train.render import Example

TEMPLATE = """Two assistants have answered the same prompt. Say which answer is better: more correct, more helpful, \
and closer to what the prompt asks for. Do not prefer an answer for being longer, or for being the first one.

[Prompt]
{prompt}

[Reference answer]
{reference}

[Answer A]
{a}

[Answer B]
{b}

Give one sentence of reasons, then your verdict: [[A]] if answer A is better, [[B]] if answer B is better, [[C]] if \
neither is."""
"""What a judge is asked, unless `promptTemplate` says otherwise."""

_PLACE = re.compile(r"\{(?:prompt|reference|a|b)\}")

WIN, LOSS, TIE, INCONSISTENT, FAILED = "Tuned", "Baseline", "Tie", "Inconsistent", "Failed"
_POINTS = {WIN: 1.0, LOSS: 0.0, TIE: 0.5, INCONSISTENT: 0.5}


@dataclass(frozen=True)
class Compared:
    """What the judge said."""

    scores: tuple[Score, ...]
    judgements: tuple[Judgement, ...]
    words: dict[str, list[str]]
    """By baseline: the outcome of each row."""


def check(wanted: EvaluationPlan) -> None:
    """Refuse a judge that could not be asked.

    Raises:
        FineTuneError: InvalidPlan.
    """
    if wanted.judge is None:
        raise FineTuneError(FailureReason.INVALID_PLAN, "evaluation.judge: JudgeWinRate needs one")
    template = wanted.judge.prompt_template
    if template is not None and not all(name in template for name in ("{a}", "{b}")):
        raise FineTuneError(
            FailureReason.INVALID_PLAN, "evaluation.judge.promptTemplate: has to contain {a} and {b}, the two answers"
        )


def endpoint_of(plan: JudgePlan) -> Endpoint:
    """Where it is asked; a context that closes its connections."""
    return Endpoint(
        Settings(
            path="evaluation.judge",
            url=plan.endpoint,
            model=plan.model,
            key_variable=ENV_JUDGE_KEY,
            max_tokens=plan.max_tokens,
            concurrency=plan.concurrency,
            timeout_seconds=plan.timeout_seconds,
            retries=plan.retries,
        )
    )


def compare(
    plan: JudgePlan,
    endpoint: Endpoint,
    examples: Sequence[Example],
    answers: Mapping[str, Sequence[str]],
    seed: int,
) -> Compared:
    """The tuned model's answers against those of every baseline.

    Args:
        plan: How the judge is asked.
        endpoint: Where.
        examples: The rows.
        answers: Of every system.
        seed: Of the intervals.

    Raises:
        FineTuneError: EvaluationFailed where too many rows stay without a verdict.
    """
    words = {
        system: _outcomes(plan, endpoint, examples, answers[TUNED], theirs)
        for system, theirs in answers.items()
        if system != TUNED
    }
    judgements = tuple(
        _judgement(plan, system, found, answers[TUNED], answers[system], seed) for system, found in words.items()
    )
    return Compared(tuple(_scores(words, seed)), judgements, words)


def question(template: str, example: Example, first: str, second: str) -> str:
    """The template with one pair in it; braces in answers mean nothing."""
    values = {"{prompt}": example.prompt, "{reference}": example.answer, "{a}": first, "{b}": second}
    return _PLACE.sub(lambda found: values[found.group()], template)


def outcome(first: Verdict | None, second: Verdict | None) -> str:
    """Of two verdicts on one pair: the tuned model's answer was A in the first question and B in the second."""
    if first is None or second is None:
        return FAILED
    ours = (first is Verdict.A, second is Verdict.B)
    theirs = (first is Verdict.B, second is Verdict.A)
    if all(ours):
        return WIN
    if all(theirs):
        return LOSS
    return INCONSISTENT if any(ours) and any(theirs) else TIE


def _outcomes(
    plan: JudgePlan, endpoint: Endpoint, examples: Sequence[Example], ours: Sequence[str], theirs: Sequence[str]
) -> list[str]:
    template = plan.prompt_template or TEMPLATE
    most_failed = int(plan.max_failed_share * len(examples))

    def asked(at: int, a: str, b: str) -> Verdict | None:
        turns = [{"role": "user", "content": question(template, examples[at], a, b)}]
        return endpoint.ask(turns, verdict_in, "verdict")

    asked_about: list[int] = []
    failed: list[int] = []
    given_up = threading.Event()

    def judged(at: int) -> str:
        if given_up.is_set():
            return FAILED
        if ours[at].strip() == theirs[at].strip():
            return TIE
        try:
            first = asked(at, ours[at], theirs[at])
            found = outcome(first, first and asked(at, theirs[at], ours[at]))
        except FineTuneError:
            given_up.set()
            raise
        asked_about.append(at)
        if found == FAILED:
            failed.append(at)
            if len(failed) > most_failed:
                given_up.set()
        return found

    with ThreadPoolExecutor(plan.concurrency) as pool:
        found = list(pool.map(judged, range(len(examples))))
    if given_up.is_set():
        raise FineTuneError(
            FailureReason.EVALUATION_FAILED,
            f"evaluation.judge: {plan.endpoint} ({plan.model}) gave no verdict on {len(failed)} of {len(asked_about)} "
            f"rows after {plan.retries} retries each; the last: {endpoint.last_trouble}; the artifact is kept",
        )
    return found


def _scores(words: Mapping[str, Sequence[str]], seed: int) -> list[Score]:
    """Of the tuned model: over all pairs. Of a baseline: the share that it wins, with the tuned model's lead."""
    points = {system: _points(found) for system, found in words.items()}
    everything = [each for found in points.values() for each in found]
    scores = [score(Metric.JUDGE_WIN_RATE, TUNED, Mean.over(everything), seed)]
    for system, found in points.items():
        theirs = Mean.over([1 - each for each in found])
        scores.append(score(Metric.JUDGE_WIN_RATE, system, theirs, seed, Mean.over(found)))
    return scores


def _points(found: Sequence[str]) -> list[float]:
    return [_POINTS[each] for each in found if each != FAILED]


def _judgement(
    plan: JudgePlan, system: str, found: list[str], ours: Sequence[str], theirs: Sequence[str], seed: int
) -> Judgement:
    kept = [at for at, each in enumerate(found) if each != FAILED]
    points = _points(found)
    rate = score(Metric.JUDGE_WIN_RATE, TUNED, Mean.over(points), seed)
    lengths = [float(len(ours[at]) - len(theirs[at])) for at in kept]
    return Judgement(
        baseline=system,
        model=plan.model,
        endpoint=plan.endpoint,
        prompt_hash=prompt_hash(plan),
        rows=len(kept),
        wins=found.count(WIN),
        losses=found.count(LOSS),
        ties=found.count(TIE),
        inconsistent=found.count(INCONSISTENT),
        failed=found.count(FAILED),
        win_rate=rate.value,
        low=rate.low if rate.low is not None else rate.value,
        high=rate.high if rate.high is not None else rate.value,
        length_controlled_win_rate=length_controlled(points, lengths),
    )


def prompt_hash(plan: JudgePlan) -> str:
    """Names what a judge was asked and how: figures with another hash cannot be compared."""
    asked = [plan.model, plan.prompt_template or TEMPLATE, plan.max_tokens, "temperature 0, both orders"]
    return "sha256:" + hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def length_controlled(points: Sequence[float], lengths: Sequence[float]) -> float:
    """The win rate at answers of equal length (Dubois et al. 2024, without their terms for models and prompts).

    A logistic regression of the outcome on tanh(difference of lengths / its standard deviation), read at 0; a tie is
    half a win and half a loss.
    """
    from sklearn.linear_model import LogisticRegression

    spread = float(np.std(lengths))
    if not points or spread == 0 or len(set(points)) == 1:
        return round(float(np.mean(points)), 6) if points else 0.5
    feature = np.tanh(np.asarray(lengths) / spread)[:, None]
    rows = np.concatenate([feature, feature])
    wins = np.concatenate([np.ones(len(points)), np.zeros(len(points))])
    weights = np.concatenate([np.asarray(points), 1 - np.asarray(points)])
    fitted = LogisticRegression().fit(rows, wins, sample_weight=weights)
    return round(float(fitted.predict_proba([[0.0]])[0, 1]), 6)
