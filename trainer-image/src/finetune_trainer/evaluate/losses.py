"""Losses of rows, and which of two answers a model finds likelier."""

from collections.abc import Sequence
from dataclasses import replace

from finetune_trainer.evaluate.generate import Loss
from finetune_trainer.evaluate.heldout import HeldOut
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.train.render import Example
from finetune_trainer.train.rows import with_answer
from finetune_trainer.train.sequences import Piece, pieces_of
from finetune_trainer.train.workbench import Workbench


def pieces_of_examples(bench: Workbench, examples: list[Example]) -> list[list[Piece]]:
    """Each example as (ids, labels), one that is longer than the context in pieces."""
    return [pieces_of(each, bench.context, split_long=True) for each in bench.renderer.example_tokens(examples)]


def losses_of(subject: Subject, examples: list[list[Piece]]) -> list[Loss]:
    """The loss of each example."""
    return summed(examples, subject.losses([piece for pieces in examples for piece in pieces]))


def summed(examples: list[list[Piece]], losses: Sequence[Loss]) -> list[Loss]:
    """The loss of each example from those of all pieces."""
    found = iter(losses)
    return [_sum([next(found) for _ in pieces]) for pieces in examples]


def with_worse_answers(rows: HeldOut, examples: list[Example]) -> list[Example]:
    """The same prompts, solved rows included, with the answers that were rejected."""
    worse = [rows.renderer.example(with_answer(row, row["rejected"])) for row in rows.rows]
    return [
        replace(each, completion=other.completion, answer=other.answer)
        for each, other in zip(examples, worse, strict=True)
    ]


def preferred(chosen: Sequence[Loss], rejected: Sequence[Loss]) -> list[float]:
    """By mean log-probability per token, as SimPO judges (Meng et al. 2024, eq. 4): a sum prefers short answers."""
    return [
        float(good.total / max(good.tokens, 1) < bad.total / max(bad.tokens, 1))
        for good, bad in zip(chosen, rejected, strict=True)
    ]


def _sum(losses: list[Loss]) -> Loss:
    return Loss(sum(loss.total for loss in losses), sum(loss.tokens for loss in losses))
