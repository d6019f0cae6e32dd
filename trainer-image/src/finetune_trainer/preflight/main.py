"""`python -m finetune_trainer preflight`: what a training would need, before it gets a GPU.

    python -m finetune_trainer preflight --plan plan.json --store /store --termination-log /tmp/result.json

Needs no GPU and reads no weights; a PreflightResult goes into the termination log.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.preflight import PreflightPlan, PreflightResult
from finetune_trainer.command import options, run_plan

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Look at one plan; answers the exit code."""
    # Also on a machine with a GPU: what is found must not hang on where this runs.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    parser = options("preflight", __doc__, PreflightPlan)
    return run_plan(parser, argv, PreflightPlan, _work, lambda failure: PreflightResult(failure=failure))


def _work(plan: PreflightPlan, root: Path) -> PreflightResult:
    from finetune_trainer.preflight.check import check

    result = check(plan, root)
    log.info("%s", result.to_json())
    return result
