"""Serve a plan: python -m finetune_server [--plan F] [--store D] [--adapters D] [--host H] [--port N].

The variable FINETUNE_API_KEYS_FILE names a file with one API key per line; without it everybody may ask.
FINETUNE_LINGER_SECONDS (default 0) is how long new requests are still answered after SIGTERM.
Ends with 0 after a drain (SIGTERM), else with the exit code of the failure's reason.
"""

import argparse
import asyncio
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from finetune_contract.failure import FineTuneError, policy_of
from finetune_contract.paths import (
    ADAPTERS_MOUNT,
    ENV_API_KEYS_FILE,
    ENV_LINGER_SECONDS,
    PLAN_FILE,
    POD_PORT,
    STORE_MOUNT,
)
from finetune_contract.serving import ServingPlan
from finetune_server.keys import ApiKeys
from finetune_store.edge import failure_of, read_plan
from finetune_store.opening import open_store

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
    # 5 to 10 times slower where cores are shared or limited, as a pod's are. GNU's, which torch brings along, spin for
    # some microseconds: to be woken for every small operation costs more.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        plan = read_plan(arguments.plan, ServingPlan)
        keys_file = os.environ.get(ENV_API_KEYS_FILE)
        keys = ApiKeys(Path(keys_file)) if keys_file else None
        spare_imports(open_store(plan, arguments.store).path(plan.base))
        from finetune_server.serve import serve

        linger = float(os.environ.get(ENV_LINGER_SECONDS, "0"))
        place = (arguments.store, arguments.adapters, arguments.host, arguments.port)
        failure = asyncio.run(serve(plan, *place, keys, linger))
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


def spare_imports(base: Path) -> None:
    """Have transformers and peft do without what they import wherever it is installed, and no server of text needs.

    scipy is for losses of object detection; bitsandbytes, which brings in torch's compiler, for bases that are stored
    in it. Together they take a fourth of the processor time before a pod can load anything.
    """
    try:
        config = json.loads((base / "config.json").read_bytes())
    except (OSError, ValueError):
        return  # loading the model says what is wrong
    stored_in = (config.get("quantization_config") or {}).get("quant_method")
    for name in {"scipy", "bitsandbytes"} - {stored_in}:
        # Python's own way to say that a module is not to be found.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    # Everything is answered and nothing is left to save; unwinding torch would take seconds of CPU that the pod's
    # successor needs.
    os._exit(exit_code)
