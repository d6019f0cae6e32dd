"""One row: how its token is chosen and how its tokens become text."""

import pytest
import torch

from finetune_server.sampling import Sampling, choose, generator_for
from finetune_server.text import AnswerText

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0])


def draws(sampling: Sampling, count: int = 400) -> list[int]:
    random = generator_for(sampling)
    return [choose(LOGITS, sampling, random) for _ in range(count)]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), {1}),
        (Sampling(temperature=1e-6), {1}),
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
        (Sampling(temperature=1.0, top_k=2), {1, 2}),
        (Sampling(temperature=1.0, top_k=9), {0, 1, 2, 3}),
        (Sampling(temperature=1.0, top_p=0.6), {1}),
        (Sampling(temperature=1.0, top_p=0.7), {1, 2}),
        (Sampling(temperature=1.0, top_p=1e-9), {1}),
    ],
    ids=str,
)
def test_only_these_tokens_are_drawn(sampling: Sampling, expected: set[int]) -> None:
    assert set(draws(sampling)) == expected


def test_frequencies_are_the_probabilities() -> None:
    drawn = draws(Sampling(temperature=2.0, seed=3), 4000)

    wanted = (LOGITS / 2).softmax(-1)
    assert [drawn.count(token) / 4000 for token in range(4)] == pytest.approx(wanted.tolist(), abs=0.03)


def test_the_seed_decides() -> None:
    assert draws(Sampling(temperature=1.0, seed=1)) == draws(Sampling(temperature=1.0, seed=1))
    assert draws(Sampling(temperature=1.0, seed=1)) != draws(Sampling(temperature=1.0, seed=2))


def say(pieces: list[bytes], stop: tuple[str, ...] = (), *, keeps_stop: bool = False) -> tuple[list[str], str]:
    """What a client gets for each token, and the text in the end; tokens decode to these bytes."""
    text = AnswerText(
        lambda ids: b"".join(pieces[one] for one in ids).decode(errors="replace"), stop, keeps_stop=keeps_stop
    )
    parts: list[str] = []
    for token in range(len(pieces)):
        stopped = text.add(token)
        parts.append(text.take(is_last=stopped or token == len(pieces) - 1))
        if stopped:
            break
    return parts, text.text


@pytest.mark.parametrize(
    ("pieces", "stop", "parts"),
    [
        ([b"a", b"b"], (), ["a", "b"]),
        (["é".encode()[:1], "é".encode()[1:], b"!"], (), ["", "é", "!"]),
        ([b"a", "é".encode()[:1]], (), ["a", "\ufffd"]),
        ([b"one", b"\nQ", b":", b" two"], ("\nQ:",), ["one", "", ""]),
        ([b"one", b"\nQ", b"a", b" two"], ("\nQ:",), ["one", "", "\nQa", " two"]),
        ([b"one\n"], ("\nQ:",), ["one\n"]),
        ([b"x", b"aab", b"c"], ("b", "aa"), ["x", ""]),
        ([b"end", b"STOP more"], ("STOP",), ["end", ""]),
    ],
    ids=["plain", "half a character", "cut in a character", "stop", "no stop after all", "end", "earliest", "inside"],
)
def test_text_in_parts(pieces: list[bytes], stop: tuple[str, ...], parts: list[str]) -> None:
    assert say(pieces, stop) == (parts, "".join(parts))


def test_a_stop_sequence_can_be_kept() -> None:
    assert say([b"one", b"\nQ", b": x"], ("\nQ:",), keeps_stop=True) == (["one", "", "\nQ:"], "one\nQ:")
