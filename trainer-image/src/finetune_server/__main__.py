"""Serve a plan: python -m finetune_server [--plan F] [--store D] [--adapters D] [--host H] [--port N].

The variable FINETUNE_API_KEYS_FILE names a file with one API key per line; without it everybody may ask.
Ends with 0 after a drain (SIGTERM), else with the exit code of the failure's reason.
"""

import argparse
import asyncio
import logging
import os
import resource
import signal
from pathlib import Path

from finetune_contract.failure import FineTuneError, policy_of
from finetune_contract.paths import ADAPTERS_MOUNT, ENV_API_KEYS_FILE, PLAN_FILE, POD_PORT, STORE_MOUNT
from finetune_contract.serving import ServingPlan
from finetune_server.keys import ApiKeys
from finetune_store.edge import failure_of, read_plan

log = logging.getLogger("finetune_server")


def main() -> int:
    """Read the arguments, serve, and answer the exit code."""
    parser = argparse.ArgumentParser(prog="finetune_server", description="The Transformers engine.")
    parser.add_argument("--plan", type=Path, default=PLAN_FILE)
    parser.add_argument("--store", type=Path, default=STORE_MOUNT)
    parser.add_argument("--adapters", type=Path, default=ADAPTERS_MOUNT)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - the pod's network is the boundary
    parser.add_argument("--port", type=int, default=POD_PORT)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # A container's first process ignores signals without a handler; uvicorn sets its own after the imports below.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: os._exit(0))
    allow_many_connections()
    # Before torch is loaded: its threads would spin while they wait for one another, which is fast on idle cores and
    # 5 to 10 times slower where cores are shared or limited, as a pod's are.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        plan = read_plan(arguments.plan, ServingPlan)
        keys_file = os.environ.get(ENV_API_KEYS_FILE)
        keys = ApiKeys(Path(keys_file)) if keys_file else None
        from finetune_server.serve import serve

        failure = asyncio.run(serve(plan, arguments.store, arguments.adapters, arguments.host, arguments.port, keys))
    except FineTuneError as error:
        failure = failure_of(error)
    if failure is None:
        return 0
    log.error("%s: %s", failure.reason, failure.message)
    return policy_of(failure.reason).exit_code or 1


def allow_many_connections() -> None:
    """Take as many file descriptors as the container may have: the usual soft limit of 1,024 is one per client."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    # Everything is answered and nothing is left to save; unwinding torch would take seconds of CPU that the pod's
    # successor needs.
    os._exit(exit_code)
