"""`python -m finetune_store stage|resolve|deliver|collect|show`: what small CPU pods and init containers run.

    python -m finetune_store stage --plan plan.json        leaves a StageResult in the termination log
    python -m finetune_store resolve --plan plan.json      leaves a ResolveResult there
    python -m finetune_store deliver --plan plan.json      leaves a Failure there, or nothing
    python -m finetune_store collect --plan plan.json      leaves a CollectionResult there
    python -m finetune_store show --uri URI --digest DIGEST --file NAME    prints a file, leaves a Failure or nothing

The exit code is the failure reason's (finetune_contract.failure), 0 without one.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.base import StoredReference
from finetune_contract.collection import CollectionPlan, CollectionResult
from finetune_contract.paths import PLAN_FILE, SCRATCH_MOUNT, SOURCE_MOUNT, STORE_MOUNT, TERMINATION_LOG
from finetune_contract.results import ResolveResult, StageResult
from finetune_contract.serving import ServingPlan
from finetune_contract.staging import ResolvePlan, StagePlan
from finetune_store.collect import collect
from finetune_store.deliver import deliver
from finetune_store.edge import read_plan, run_command
from finetune_store.opening import open_store
from finetune_store.resolve import resolve
from finetune_store.show import show, show_of_run
from finetune_store.stage import stage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)

    def staged() -> StageResult:
        plan = read_plan(options.plan, StagePlan)
        return stage(plan, open_store(plan, options.store), options.source, options.scratch)

    def resolved() -> ResolveResult:
        plan = read_plan(options.plan, ResolvePlan)
        return resolve(plan, open_store(plan, options.store))

    def delivered() -> None:
        plan = read_plan(options.plan, ServingPlan)
        deliver(plan, open_store(plan, options.store), options.adapters)

    def collected() -> CollectionResult:
        plan = read_plan(options.plan, CollectionPlan)
        return collect(plan, open_store(plan, options.store))

    def shown() -> None:
        _show(options)

    if options.command == "show":
        return run_command(shown, lambda failure: failure, options.termination_log)
    if options.command == "collect":
        return run_command(collected, lambda failure: CollectionResult(failure=failure), options.termination_log)
    if options.command == "stage":
        return run_command(staged, lambda failure: StageResult(failure=failure), options.termination_log)
    if options.command == "resolve":
        return run_command(resolved, lambda failure: ResolveResult(failure=failure), options.termination_log)
    return run_command(delivered, lambda failure: failure, options.termination_log)


def _show(options: argparse.Namespace) -> None:
    if options.run:
        show_of_run(options.run, options.file, options.plan, options.store)
    else:
        show(StoredReference(digest=options.digest, uri=options.uri), options.file, options.plan, options.store)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--plan", type=Path, default=PLAN_FILE)
    common.add_argument("--store", type=Path, default=STORE_MOUNT, help="where the claim is mounted, or copies go")
    common.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="where the result goes")
    parser = argparse.ArgumentParser(
        prog="finetune_store", description="Directories with manifests on a claim or in S3."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    stage_parser = commands.add_parser("stage", parents=[common], help="bring a base model into the store")
    stage_parser.add_argument("--source", type=Path, default=SOURCE_MOUNT, help="where the user's claim is mounted")
    stage_parser.add_argument("--scratch", type=Path, default=SCRATCH_MOUNT, help="for the caches of clients")
    commands.add_parser("resolve", parents=[common], help="look up whether a run has succeeded")
    deliver_parser = commands.add_parser("deliver", parents=[common], help="copy adapters to a serving pod")
    deliver_parser.add_argument("--adapters", type=Path, default=Path("/adapters"))
    commands.add_parser("collect", parents=[common], help="delete what nothing has referred to for some time")
    show_parser = commands.add_parser("show", parents=[common], help="print a file of a stored directory")
    show_parser.add_argument("--file", required=True)
    show_parser.add_argument("--uri", default="", help="of the stored directory, with --digest")
    which = show_parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--digest", help="of the stored directory at --uri")
    which.add_argument("--run", help="a run's key: the file is in its directory")
    return parser


if __name__ == "__main__":
    sys.exit(main())
