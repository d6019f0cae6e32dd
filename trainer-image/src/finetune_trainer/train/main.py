"""`python -m finetune_trainer train`: the edge of a training pod.

    python -m finetune_trainer train --plan plan.json --store /store --termination-log /tmp/result.json

Of a plan with several ranks it starts those of its pod, each a process of this command with RANK set; otherwise the
progress server starts first, then torch is loaded. Every failure gets its name here, once, and ends as a
TrainingResult in the termination log and an exit code.
"""

import argparse
import logging
import os
from collections.abc import Sequence

from finetune_contract.base import Document
from finetune_contract.failure import Failure, FineTuneError
from finetune_contract.paths import ENV_POD_UID, POD_PORT
from finetune_contract.training import TrainingPlan
from finetune_store.edge import read_plan, run_command
from finetune_trainer.command import options
from finetune_trainer.progress import ProgressBoard, serve
from finetune_trainer.stop import Stop
from finetune_trainer.timings import Stopwatch
from finetune_trainer.train.attempt import Attempt
from finetune_trainer.train.failures import named
from finetune_trainer.train.launch import launch
from finetune_trainer.train.memory import peak_memory
from finetune_trainer.train.ranks import Ranks, refuse_impossible_group
from finetune_trainer.train.result import failed_result, fitted
from finetune_trainer.train.surroundings import prepare_environment

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Train one attempt of one run; answers the exit code."""
    arguments = _parse(argv)
    plan = _plan_of_a_group(arguments)
    if plan is not None:
        return launch(plan, argv, arguments.scratch, arguments.termination_log)
    prepare_environment(arguments.scratch)
    command = _Command(arguments)
    return run_command(command.work, command.failed, arguments.termination_log)


def _plan_of_a_group(arguments: argparse.Namespace) -> TrainingPlan | None:
    """The plan, where this process is to start the ranks of its pod; None where it trains itself, or says why not."""
    if "RANK" in os.environ:
        return None
    try:
        plan = read_plan(arguments.plan, TrainingPlan)
        refuse_impossible_group(plan)
    except FineTuneError:
        return None
    return plan if plan.parallelism.ranks > 1 else None


class _Command:
    """One call of the command: what `run_command` needs, with the board between success and failure."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._board: ProgressBoard | None = None

    def work(self) -> Document | None:
        arguments, watch, stop = self._arguments, Stopwatch(), Stop()
        stop.install()
        plan = read_plan(arguments.plan, TrainingPlan)
        board = self._board = ProgressBoard(plan.run_key, plan.attempt)
        refuse_impossible_group(plan)
        ranks = Ranks.from_environment()
        if ranks.local == 0:
            serve(board, arguments.port)
        else:
            # All ranks of a pod write to one log: what they have in common is said once.
            logging.getLogger().setLevel(logging.WARNING)
        log.info("run %s, attempt %d: loading libraries", plan.run_key[:12], plan.attempt)
        with named(stop):
            with watch.stage("Loading"):
                from finetune_trainer.train.recipe import run
            log.info("libraries loaded in %.1f s", watch.timings()[0].seconds)
            stop.check()
            result = run(Attempt(plan, arguments.pod_uid, board, stop, watch, ranks), arguments.store)
            return fitted(result) if result else None

    def failed(self, failure: Failure) -> Document:
        if self._board:
            self._board.update(peak_memory_bytes=peak_memory())
        return fitted(failed_result(failure, self._board.snapshot() if self._board else None))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = options("train", __doc__, TrainingPlan)
    parser.add_argument("--port", type=int, default=POD_PORT, help="of /progress and /metrics; 0: any free one")
    parser.add_argument("--pod-uid", default=os.environ.get(ENV_POD_UID, "local"), help="names the checkpoints")
    return parser.parse_args(argv)
