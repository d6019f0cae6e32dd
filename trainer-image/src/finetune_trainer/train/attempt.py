"""One attempt: its plan, and those who have to know how it goes."""

from dataclasses import dataclass

from finetune_contract.training import TrainingPlan
from finetune_trainer.progress import ProgressBoard
from finetune_trainer.stop import Stop
from finetune_trainer.timings import Stopwatch
from finetune_trainer.tracking.reporter import Reporter
from finetune_trainer.train.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Attempt:
    """What every stage is given."""

    plan: TrainingPlan
    pod_uid: str
    """Names this incarnation's checkpoints."""
    board: ProgressBoard
    stop: Stop
    watch: Stopwatch
    ranks: Ranks = ALONE
    tracking: Reporter | None = None
    """None: there is no experiment tracker."""
