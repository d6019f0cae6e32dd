"""Whose answers are these? A table of engines and what the judgement says of them."""

from dataclasses import dataclass

import pytest

from finetune_contract.proof import ProofState
from finetune_contract.results import Probe, ProbePrompt
from finetune_prober.judgement import Answer, AnswerToken, distance, judge

TUNED = ("json", " module", "")
TUNED_LOGPROBS = (-0.05, -0.1, -0.02)
BASE = ("The", " json", " is")
BASE_LOGPROBS = (-1.0, -1.5, -0.7)


def answer(
    pieces: tuple[str, ...], logprobs: tuple[float, ...], others: dict[int, dict[str, float]] | None = None
) -> Answer:
    """An engine's answer; `others` are alternatives by position."""
    offsets = [len("".join(pieces[:at])) for at in range(len(pieces))]
    tokens = tuple(
        AnswerToken(piece or "<end>", offset, logprob, {piece or "<end>": logprob, **(others or {}).get(at, {})})
        for at, (piece, offset, logprob) in enumerate(zip(pieces, offsets, logprobs, strict=True))
    )
    return Answer("".join(pieces), tokens)


def prompt(**changes: object) -> ProbePrompt:
    return ProbePrompt(
        **{
            "prompt": "Which module?",
            "tuned_text": "".join(TUNED),
            "tuned_logprobs": TUNED_LOGPROBS,
            "base_text": "".join(BASE),
            "base_logprobs": BASE_LOGPROBS,
            **changes,
        }
    )


TELLING = prompt()


@dataclass
class Case:
    id: str
    answer: Answer
    state: ProofState
    says: str = ""
    probe: ProbePrompt = TELLING


SAME_TEXT = prompt(base_text="json module", base_logprobs=(-1.2, -1.4, -0.9))
NEARLY = prompt(base_text="json module", base_logprobs=(-0.06, -0.1, -0.02))
UNTRAINED = prompt(base_text="json module", base_logprobs=TUNED_LOGPROBS)

CASES = [
    Case("the tuned model", answer(TUNED, TUNED_LOGPROBS), ProofState.SERVING),
    Case("the tuned model in bf16", answer(TUNED, (-0.08, -0.06, -0.02)), ProofState.SERVING),
    Case("the tuned model, end token left out", answer(TUNED[:2], TUNED_LOGPROBS[:2]), ProofState.SERVING),
    Case("the base model", answer(BASE, BASE_LOGPROBS), ProofState.INERT, "ignores the adapter"),
    Case("another adapter, sure of itself", answer(("zip", " module", ""), (-0.05, -0.1, -0.02)), ProofState.INVALID),
    Case(
        "another adapter, unsure of itself",
        answer(("zip", " file"), (-1.1, -1.2), {0: {"os": -1.6, "re": -2.0, "io": -2.1, "ast": -2.3}}),
        ProofState.INVALID,
        "neither",
    ),
    Case("the tuned words, another's certainty", answer(TUNED, (-2.0, -1.9, -2.2)), ProofState.INVALID, "neither"),
    Case(
        "the adapter at the first token only",  # TGI's CUDA graphs: prefill has the adapter, decoding has not
        answer(("json", ".", " It"), (-0.05, -1.1, -1.3), {1: {" is": -1.5, ",": -1.9, "(": -2.2, "'": -2.6}}),
        ProofState.INVALID,
        "neither",
    ),
    Case("same words, tuned certainty", answer(TUNED, TUNED_LOGPROBS), ProofState.SERVING, probe=SAME_TEXT),
    Case("same words, base certainty", answer(TUNED, (-1.2, -1.4, -0.9)), ProofState.INERT, probe=SAME_TEXT),
    Case("training changed nothing", answer(TUNED, TUNED_LOGPROBS), ProofState.INERT, "changed nothing", UNTRAINED),
    Case("a faint adapter, exact arithmetic", answer(TUNED, TUNED_LOGPROBS), ProofState.SERVING, probe=NEARLY),
    Case("a faint adapter, bf16", answer(TUNED, (-0.02, -0.13, -0.02)), ProofState.INERT, "too alike", NEARLY),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_judgement(case: Case) -> None:
    verdict = judge(Probe(prompts=(case.probe,)), [case.answer])

    assert verdict.state is case.state, verdict
    assert case.says in verdict.message
    assert bool(verdict.message) is (case.state is not ProofState.SERVING)


def test_rounding_may_turn_a_near_tie() -> None:
    turned = answer(("json", " package"), (-0.05, -0.70), {1: {" module": -0.71}})

    assert distance(turned, "json module", (-0.05, -0.69)) < 0.02


def test_a_sure_token_is_never_turned_by_rounding() -> None:
    other = answer(("json", " package"), (-0.05, -0.05), {1: {" module": -3.1}})

    assert distance(other, "json module", (-0.05, -0.05)) > 1


def test_a_tie_with_the_end_of_the_answer() -> None:
    goes_on = answer(("json", " module"), (-0.05, -0.70), {1: {"<end>": -0.72}})

    assert distance(goes_on, "json", (-0.05, -0.69)) < 0.03


def test_half_a_character_at_the_end_is_no_difference() -> None:
    cut = answer(("json", "\ufffd"), (-0.05, -0.3))

    assert distance(cut, "json", (-0.05, -0.3)) == 0


def test_tokens_inside_a_character_count_as_shared() -> None:
    """Their text comes with the last of them, so several begin at the same place."""
    text = Answer(
        "é is",
        (AnswerToken("\ufffd", 0, -0.1, {}), AnswerToken("\ufffd", 0, -0.2, {}), AnswerToken(" is", 1, -0.3, {})),
    )

    assert distance(text, "é is", (-0.1, -0.2, -0.3)) == 0
    assert distance(text, "é was", (-0.1, -0.2, -0.3)) > 1


def test_one_prompt_that_tells_is_enough() -> None:
    probe = Probe(prompts=(UNTRAINED, prompt()))
    answers = [answer(TUNED, TUNED_LOGPROBS), answer(TUNED, TUNED_LOGPROBS)]

    assert judge(probe, answers).state is ProofState.SERVING


def test_an_answer_without_tokens_proves_nothing() -> None:
    empty = prompt(tuned_text="", tuned_logprobs=(), base_text="", base_logprobs=())

    assert judge(Probe(prompts=(empty,)), [Answer("", ())]).state is ProofState.INERT
