"""`python -m finetune_trainer preflight`: what a training would need, before it gets a GPU.

    python -m finetune_trainer preflight --plan plan.json --store /store --termination-log /tmp/result.json

Needs no GPU and reads no weights; a PreflightResult goes into the termination log.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.paths import PLAN_FILE, SCRATCH_MOUNT, STORE_MOUNT, TERMINATION_LOG
from finetune_contract.preflight import PreflightPlan, PreflightResult
from finetune_store.edge import read_plan, run_command
from finetune_trainer.stop import Stop
from finetune_trainer.train.failures import named
from finetune_trainer.train.surroundings import prepare_environment

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Look at one plan; answers the exit code."""
    arguments = _parse(argv)
    prepare_environment(arguments.scratch)
    # Also on a machine with a GPU: what is found must not hang on where this runs.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def work() -> PreflightResult:
        stop = Stop()
        stop.install()
        plan = read_plan(arguments.plan, PreflightPlan)
        with named(stop):
            from finetune_trainer.preflight.check import check

            result = check(plan, arguments.store)
        log.info("%s", result.to_json())
        return result

    return run_command(work, lambda failure: PreflightResult(failure=failure), arguments.termination_log)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetune_trainer preflight", description=__doc__)
    parser.add_argument("--plan", type=Path, default=PLAN_FILE, help="the PreflightPlan (JSON)")
    parser.add_argument("--store", type=Path, default=STORE_MOUNT, help="where the claim is mounted")
    parser.add_argument("--scratch", type=Path, default=SCRATCH_MOUNT, help="caches; lost with the pod")
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="where the result goes")
    return parser.parse_args(argv)
