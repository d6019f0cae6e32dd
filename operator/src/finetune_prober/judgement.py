"""Whose answers are these? A pure comparison of an engine's answers with an adapter's probe."""

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
"""Cap for one position (nats), so that one impossible token does not hide what the others say."""


@dataclass(frozen=True)
class AnswerToken:
    """One greedily chosen token."""

    piece: str
    offset: int
    """Characters of the answer before it."""
    logprob: float
    top: dict[str, float]
    """The most likely tokens at this position, with their log-probabilities."""


@dataclass(frozen=True)
class Answer:
    """What the engine said to one probe prompt."""

    text: str
    tokens: tuple[AnswerToken, ...]
    """The end token may be among them."""


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

    Up to there both chose the same tokens after the same words, so their log-probabilities are comparable. Where they
    part, the engine's log-probability of the model's token is. What comes after follows different words and says
    nothing.
    """
    shared = _shared_tokens(answer, text)
    count = min(len(answer.tokens), len(logprobs)) if shared is None else min(shared, len(logprobs))
    steps = [abs(token.logprob - theirs) for token, theirs in zip(answer.tokens[:count], logprobs, strict=False)]
    if shared is not None:
        steps.append(_parting(answer, text, count, logprobs))
    return _mean([min(_MOST, step) for step in steps])


def _shared_tokens(answer: Answer, text: str) -> int | None:
    """How many of the answer's tokens lie within the text that both begin with; None when the texts are equal."""
    if _whole(answer.text) == _whole(text):
        return None
    pairs = enumerate(zip(answer.text, text, strict=False))
    common = next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(answer.text), len(text)))
    offsets = [token.offset for token in answer.tokens]
    # The end token has no text; it is where the texts part when the other one goes on.
    return sum(
        start < common and end <= common for start, end in zip(offsets, [*offsets[1:], len(answer.text)], strict=True)
    )


def _parting(answer: Answer, text: str, at: int, logprobs: Sequence[float]) -> float:
    """The difference at the token where the texts part.

    Rounding may turn a near tie: then the model's token is among the engine's best, about as likely as it was for the
    model. Else the difference is at least what the model's token lacks to the least of the engine's best.
    """
    if at >= len(answer.tokens) or at >= len(logprobs):
        return _MOST
    token, theirs = answer.tokens[at], logprobs[at]
    rest = text[token.offset :].lstrip()
    others = {piece: logprob for piece, logprob in token.top.items() if piece != token.piece}
    # Without text left, the model ended; nobody says which of the engine's tokens ends a text, so the nearest may.
    same = [abs(logprob - theirs) for piece, logprob in others.items() if not rest or _begins(rest, piece)]
    if same:
        return min(same)
    least = min(others.values(), default=-_MOST)
    return max(theirs - least, token.logprob - least)


def _begins(text: str, piece: str) -> bool:
    """Whether a token's text, less a leading space that tokenizers drop at the start, begins a text."""
    return bool(piece.strip()) and text.startswith(piece.lstrip())


def _whole(text: str) -> str:
    """Without the half character an answer may be cut in, which engines show differently."""
    return text.rstrip("\ufffd")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
