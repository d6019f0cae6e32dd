"""The process: uvicorn in front of the engine, until a signal has been drained or the engine has died."""

import asyncio
import logging
import signal
import socket
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from finetune_contract.failure import Failure, FailureReason, FineTuneError
from finetune_contract.serving import ServingPlan
from finetune_server.app import build_app
from finetune_server.engine import Engine
from finetune_server.gate import Gate
from finetune_server.keys import ApiKeys
from finetune_server.metrics import Metrics
from finetune_server.model import load, served_models
from finetune_server.service import Service

log = logging.getLogger(__name__)

_BACKLOG = 2048
"""Connections that may wait to be accepted; uvicorn's own default."""


class Server(uvicorn.Server):
    """uvicorn, but SIGTERM first drains: who comes is answered for a while, then gets 503 until all answers are given.

    uvicorn's own way closes the listening socket at once; clients that Kubernetes still routes here for a moment would
    see refused connections.
    """

    def __init__(self, config: uvicorn.Config, gate: Gate, linger_seconds: float, drain_seconds: float) -> None:
        super().__init__(config)
        self._gate = gate
        self._linger_seconds = linger_seconds
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Remember the loop: signals arrive outside of it."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: stop now."""
        if self._loop is None or self._draining is not None or self._gate.is_draining:
            super().handle_exit(sig, frame)
            return
        name = signal.Signals(sig).name
        log.info("%s: answering for %g s more, then finishing requests in flight", name, self._linger_seconds)
        self._loop.call_soon_threadsafe(self._start_drain)

    def _start_drain(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        if not await self._gate.drain(self._linger_seconds, self._drain_seconds):
            log.warning("not all requests ended within %g s", self._drain_seconds)
        self.should_exit = True


def listen(host: str, port: int, stall_seconds: float) -> socket.socket:
    """A listening socket whose connections end when the client has read nothing for some time.

    An answer that nobody reads is in the kernel's and uvicorn's buffers; both would wait for ever, and keep memory and
    a file descriptor for it. Connections inherit the limit (tcp(7)).
    """
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_seconds * 1000))
    return listener


async def serve(
    plan: ServingPlan, store: Path, adapters: Path, host: str, port: int, keys: ApiKeys | None, linger_seconds: float
) -> Failure | None:
    """Serve until a signal and `linger_seconds` more, or until the engine fails."""
    # The imports are over: on a small model they take most of a start.
    log.info("loading the base and %d adapters of %s", len(plan.adapters), plan.name)
    models = served_models(plan, store, adapters)
    metrics = Metrics()
    engine = Engine(plan, partial(load, models), metrics)
    gate = build_app(Service(plan, models, engine, metrics), keys)
    config = uvicorn.Config(
        gate,
        log_level="warning",
        access_log=False,
        lifespan="off",
        # After the drain; whoever has not read the answer by then does not read.
        timeout_graceful_shutdown=5,
    )
    server = Server(config, gate, linger_seconds, plan.request_timeout_seconds)
    failures: list[Failure] = []

    def died(failure: FineTuneError | None) -> None:
        error = failure or FineTuneError(FailureReason.SERVER_CRASHED, "the engine's thread died; see the log")
        failures.append(error.to_failure())
        server.should_exit = True

    engine.start(asyncio.get_running_loop(), died)
    with listen(host, port, plan.request_timeout_seconds) as listener:
        await server.serve([listener])
    engine.stop()
    return failures[0] if failures else None
