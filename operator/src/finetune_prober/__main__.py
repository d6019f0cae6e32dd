"""Prove a serving pod: python -m finetune_prober [--plan F] [--adapters D] [--engine URL] [--port N]."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import aiohttp
from aiohttp import web

from finetune_contract.failure import FineTuneError, policy_of
from finetune_contract.paths import ADAPTERS_MOUNT, ENV_API_KEYS_FILE, PLAN_FILE, POD_PORT, PROBER_PORT
from finetune_contract.serving import ServingPlan
from finetune_prober.engine import ENGINES
from finetune_prober.metrics import Metrics
from finetune_prober.prover import Prover
from finetune_store.edge import read_plan

log = logging.getLogger("finetune_prober")


def build_app(prover: Prover, metrics: Metrics) -> web.Application:
    """The answers to kubelet, operator and Prometheus."""

    async def ready(_request: web.Request) -> web.Response:
        status = prover.status
        return web.Response(text=status.to_json(), status=200 if status.ready else 503, content_type="application/json")

    async def status(_request: web.Request) -> web.Response:
        return web.Response(text=prover.status.to_json(), content_type="application/json")

    async def prometheus(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/status", status), web.get("/metrics", prometheus)])
    return app


async def prove(plan: ServingPlan, adapters: Path, engine_url: str, host: str, port: int) -> None:
    """Prove and answer until SIGTERM comes; an error of the prover itself ends the process.

    A ready engine is followed to its end: it answers for a while after the pod was told to go, and where no other pod
    is ready, Kubernetes goes on sending clients to one that goes and is.
    """
    metrics = Metrics()
    # A new connection per request: an idle one that the engine closes must not look like a lost engine.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        keys = os.environ.get(ENV_API_KEYS_FILE)
        engine = ENGINES[plan.engine](engine_url, session, plan.name, Path(keys) if keys else None)
        prover = Prover(plan, adapters, engine, metrics)
        runner = web.AppRunner(build_app(prover, metrics), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        proving = asyncio.create_task(prover.run())
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({proving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        left = asyncio.create_task(prover.until_unready())
        await asyncio.wait({proving, left}, return_when=asyncio.FIRST_COMPLETED)
        await runner.cleanup()
        if proving.done():
            proving.result()
        proving.cancel()


def main() -> int:
    """Read the arguments, prove, and answer the exit code."""
    parser = argparse.ArgumentParser(prog="finetune_prober", description="Proves the adapters of a serving pod.")
    parser.add_argument("--plan", type=Path, default=PLAN_FILE)
    parser.add_argument("--adapters", type=Path, default=ADAPTERS_MOUNT)
    parser.add_argument("--engine", default=f"http://127.0.0.1:{POD_PORT}")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - kubelet asks on the pod's address
    parser.add_argument("--port", type=int, default=PROBER_PORT)
    arguments = parser.parse_args()
    # A container's first process ignores signals without a handler; `prove` sets its own.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        plan = read_plan(arguments.plan, ServingPlan)
    except FineTuneError as error:
        log.error("%s: %s", error.reason, error)  # noqa: TRY400 - a named failure says all there is to know
        return policy_of(error.reason).exit_code or 1
    asyncio.run(prove(plan, arguments.adapters, arguments.engine, arguments.host, arguments.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
