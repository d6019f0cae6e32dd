"""Whose answers are these? A pure comparison of an engine's answers with an adapter's probe."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.proof import ProofState
from finetune_contract.results import Probe, ProbePrompt

TOLERANCE = 0.15
"""Mean difference of log-probabilities (nats) up to which answers are the same model's. Kernels and batch shapes move
bf16 by 0.01 to 0.05; fp32 on the CPU by less than 0.0001."""

NOISE = 0.001
"""Tuned and base models nearer to one another than this cannot be told apart by any engine."""

CLEARLY = 2.0
"""How many times nearer an answer must be to the one model than to the other."""

_MOST = 10.0
"""Cap for one position, so that one impossible token does not hide what the others say."""


@dataclass(frozen=True)
class Answer:
    """What the engine said to one probe prompt, greedily."""

    text: str
    logprobs: tuple[float, ...]
    """Of each generated token; the end token may be among them."""
    offsets: tuple[int, ...]
    """Characters of `text` before each token."""


@dataclass(frozen=True)
class Verdict:
    """What the answers prove."""

    state: ProofState
    message: str
    to_tuned: float
    """Mean distance to the tuned model's answers, in nats."""
    to_base: float


def judge(probe: Probe, answers: Sequence[Answer]) -> Verdict:
    """Serving, Inert or Invalid.

    Args:
        probe: What the trainer saw.
        answers: The engine's answers, one per prompt of the probe.
    """
    pairs = list(zip(probe.prompts, answers, strict=True))
    to_tuned = _mean([distance(answer, prompt.tuned_text, prompt.tuned_logprobs) for prompt, answer in pairs])
    to_base = _mean([distance(answer, prompt.base_text, prompt.base_logprobs) for prompt, answer in pairs])
    state, reason = _decide(to_tuned, to_base, is_telling=any(_tells_apart(prompt) for prompt in probe.prompts))
    figures = f"distance to the tuned model {to_tuned:.4f}, to the base {to_base:.4f} (tolerance {TOLERANCE:g} nats)"
    message = "" if state is ProofState.SERVING else f"{reason}; {figures}"
    return Verdict(state, message, to_tuned, to_base)


def _decide(to_tuned: float, to_base: float, *, is_telling: bool) -> tuple[ProofState, str]:
    """The first that holds."""
    if not is_telling:
        return ProofState.INERT, "in its own probe the tuned model answers like the base: training changed nothing"
    if to_tuned <= TOLERANCE and to_base > NOISE and to_tuned * CLEARLY < to_base:
        return ProofState.SERVING, ""
    if to_base <= TOLERANCE and to_base * CLEARLY < to_tuned:
        return ProofState.INERT, "the engine answers with the base model: it ignores the adapter"
    if max(to_tuned, to_base) <= TOLERANCE:
        return ProofState.INERT, "tuned and base model are too alike to tell which one answers; train it further"
    return ProofState.INVALID, "the engine answers neither like the tuned model nor like the base"


def _tells_apart(prompt: ProbePrompt) -> bool:
    if _whole(prompt.tuned_text) != _whole(prompt.base_text):
        return True
    differences = [abs(a - b) for a, b in zip(prompt.tuned_logprobs, prompt.base_logprobs, strict=False)]
    return _mean(differences) > NOISE


def distance(answer: Answer, text: str, logprobs: Sequence[float]) -> float:
    """How far an answer is from a model's own: mean over the tokens up to where the texts part, in nats.

    Up to there both chose the same tokens after the same words, so their log-probabilities are comparable. At the
    token where they part, both chose their own favourite: that is cheap in a near tie (rounding may turn it) and
    expensive when either was sure. What comes after follows different words and says nothing.
    """
    shared = _shared_tokens(answer, text)
    has_parted = shared is not None
    count = min(len(answer.logprobs), len(logprobs)) if shared is None else shared
    steps = [min(_MOST, abs(a - b)) for a, b in zip(answer.logprobs[:count], logprobs[:count], strict=False)]
    if has_parted:
        steps.append(_parting(answer.logprobs[count : count + 1], logprobs[count : count + 1]))
    return _mean(steps)


def _shared_tokens(answer: Answer, text: str) -> int | None:
    """How many of the answer's tokens lie within the text that both begin with; None when the texts are equal."""
    if _whole(answer.text) == _whole(text):
        return None
    common = next(
        (at for at, (ours, theirs) in enumerate(zip(answer.text, text, strict=False)) if ours != theirs),
        min(len(answer.text), len(text)),
    )
    ends = [*answer.offsets[1:], len(answer.text)]
    # The end token has no text; it is where the texts part when the other one goes on.
    return sum(1 for start, end in zip(answer.offsets, ends, strict=True) if end <= common and start < common)


def _parting(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """A lower bound of the difference where favourites differ: no token but the favourite has more than the rest.

    With p the probability of our favourite, theirs has at most min(p, 1 - p) from us, and at least that much less
    than they give it. A side that did not say (it ended, and engines leave out the end token) is taken as equal.
    """
    if not ours and not theirs:
        return _MOST
    a = ours[0] if ours else theirs[0]
    b = theirs[0] if theirs else a
    return min(_MOST, max(abs(a - b), b - _most_for_another(a), a - _most_for_another(b)))


def _most_for_another(logprob: float) -> float:
    """The highest log-probability that a second token can have beside this favourite."""
    rest = -math.expm1(min(logprob, 0.0))
    return min(logprob, math.log(max(rest, 1e-9)))


def _whole(text: str) -> str:
    """Without the half character an answer may be cut in, which engines show differently."""
    return text.rstrip("\ufffd")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
