"""Asking a judge behind any server, as an evaluation does."""

from typing import NamedTuple

from finetune_contract.evaluating import JudgePlan
from finetune_trainer.evaluate import judge
from finetune_trainer.evaluate.judge import Compared
from finetune_trainer.evaluate.record import EndpointUse
from finetune_trainer.train.render import Example


class Judged(NamedTuple):
    """What a judge said, and what that took."""

    found: Compared
    use: EndpointUse


def judged_by(plan: JudgePlan, examples: list[Example], answers: dict[str, list[str]]) -> Judged:
    """The tuned model's answers against a baseline's."""
    with judge.endpoint_of(plan) as endpoint:
        return Judged(judge.compare(plan, endpoint, examples, answers, seed=0), endpoint.use())
