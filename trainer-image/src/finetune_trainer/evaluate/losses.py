"""Losses of rows, and which of two answers a model finds likelier."""

from collections.abc import Sequence
from dataclasses import replace

from finetune_trainer.evaluate.generate import Loss
from finetune_trainer.evaluate.heldout import HeldOut
from finetune_trainer.evaluate.subject import Subject
from finetune_trainer.train.render import Example
from finetune_trainer.train.rows import with_answer
from finetune_trainer.train.sequences import pieces_of
from finetune_trainer.train.workbench import Workbench


def losses_of(bench: Workbench, subject: Subject, examples: list[Example]) -> list[Loss]:
    """The loss of each example, one that is longer than the context in pieces."""
    tokens = [pieces_of(each, bench.context, split_long=True) for each in bench.renderer.example_tokens(examples)]
    found = iter(subject.losses([piece for pieces in tokens for piece in pieces]))
    return [_summed([next(found) for _ in pieces]) for pieces in tokens]


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


def _summed(losses: list[Loss]) -> Loss:
    return Loss(sum(loss.total for loss in losses), sum(loss.tokens for loss in losses))
