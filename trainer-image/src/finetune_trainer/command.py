"""What the commands that load models have in common: their options, and the way from a plan to a result."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from finetune_contract.base import Document
from finetune_contract.failure import Failure
from finetune_contract.paths import PLAN_FILE, SCRATCH_MOUNT, STORE_MOUNT, TERMINATION_LOG
from finetune_store.edge import read_plan, run_command
from finetune_trainer.stop import Stop
from finetune_trainer.train.failures import named
from finetune_trainer.train.surroundings import prepare_environment

P = TypeVar("P", bound=Document)


def options(command: str, description: str | None, plan: type[Document]) -> argparse.ArgumentParser:
    """The options that every command has."""
    parser = argparse.ArgumentParser(prog=f"finetune_trainer {command}", description=description)
    parser.add_argument("--plan", type=Path, default=PLAN_FILE, help=f"the {plan.__name__} (JSON)")
    parser.add_argument("--store", type=Path, default=STORE_MOUNT, help="where the claim is mounted")
    parser.add_argument("--scratch", type=Path, default=SCRATCH_MOUNT, help="caches; lost with the pod")
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="where the result goes")
    return parser


def run_plan(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    plan: type[P],
    work: Callable[[P, Path], Document],
    failed: Callable[[Failure], Document],
) -> int:
    """Do what one plan asks for; answers the exit code.

    Args:
        parser: Of `options`.
        argv: What the command was given.
        plan: The kind of plan.
        work: Does everything, given the plan and where the claim is mounted, and returns the result.
        failed: The result that says why there is none.
    """
    arguments = parser.parse_args(argv)
    prepare_environment(arguments.scratch)

    def command() -> Document:
        stop = Stop()
        stop.install()
        read = read_plan(arguments.plan, plan)
        with named(stop):
            return work(read, arguments.store)

    return run_command(command, failed, arguments.termination_log)
