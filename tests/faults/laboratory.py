"""Runs the cases: several at once on one control plane, in a loop of its own; the tests only ask for the outcomes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults import life
from tests.faults.api import Api, Object, Recorder
from tests.faults.controlplane import ControlPlane
from tests.faults.stage import Stage

CRDS = Path(__file__).resolve().parents[2] / "crds"
CASE_SECONDS = 300.0


@dataclass(frozen=True)
class Case:
    """One fault, injected into one life."""

    group: str
    name: str
    play: Callable[[Stage, Goldens], Awaitable[None]] = field(compare=False)
    """Does everything, the verdict included."""

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


@dataclass
class Goldens:
    """What fault-free runs have left, and which writes and watch events they had."""

    trained: Object = field(default_factory=dict)
    """After `train`."""
    whole: Object = field(default_factory=dict)
    """After `whole_life`."""
    answered: Object = field(default_factory=dict)
    """After `train` and `answer`."""
    writes: list[str] = field(default_factory=list)
    """Of the whole life."""
    events: list[str] = field(default_factory=list)
    batch_writes: list[str] = field(default_factory=list)
    """Of `answer`."""
    batch_events: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What is told at the end."""

    cases: int = 0
    injected: int = 0
    starts: int = 0
    seconds: float = 0.0


class Laboratory:
    """The control plane, and the cases that were asked for."""

    def __init__(self, folder: Path, at_once: int) -> None:
        self._folder = folder
        self._at_once = at_once
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="laboratory", daemon=True)
        self._futures: dict[Case, Future[None]] = {}
        self._stopped = False
        self.tally = Tally()

    def begin(self, cases: list[Case]) -> None:
        """Start working on all of them."""
        self._started = time.monotonic()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(120)
        for case in cases:
            self._futures[case] = asyncio.run_coroutine_threadsafe(self._run(case), self._loop)

    def outcome(self, case: Case) -> None:
        """Wait for a case; raises what it found."""
        self._futures[case].result()

    def goldens(self) -> Goldens:
        """What the fault-free run was like."""

        async def wait() -> Goldens:
            return await asyncio.shield(self._goldens)

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    def end(self) -> None:
        """Stop everything, also what was not asked for."""
        if self._thread.is_alive() and not self._stopped:
            self._stopped = True
            self.tally.seconds = time.monotonic() - self._started
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # In the loop

    async def _open(self) -> None:
        self._control = ControlPlane(self._folder)
        self._stack = AsyncExitStack()
        self._stack.callback(self._control.stop)
        await self._control.start(CRDS)
        connector = self._control.connector()
        session = aiohttp.ClientSession(self._control.server, connector=connector)
        await self._stack.enter_async_context(session)
        self._api = Api(session)
        self._recorder = Recorder(self._api)
        await self._recorder.start()
        self._stack.push_async_callback(self._recorder.stop)
        self._slots = asyncio.Semaphore(self._at_once)
        self._goldens = asyncio.ensure_future(self._fault_free())

    async def _close(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _fault_free(self) -> Goldens:
        goldens = Goldens()
        await asyncio.gather(self._whole(goldens), self._answered(goldens))
        return goldens

    async def _answered(self, goldens: Goldens) -> None:
        async with self._quiet() as stage:
            await stage.train()
            await stage.settle()
            writes, events = len(stage.proxy.writes), len(stage.proxy.events)
            await stage.answer()
            await stage.settle()
            goldens.answered = life.final_state(stage.history.objects, stage.namespace)
            goldens.batch_writes, goldens.batch_events = stage.proxy.writes[writes:], stage.proxy.events[events:]
            await stage.verdict(goldens.answered)

    async def _whole(self, goldens: Goldens) -> None:
        async with self._quiet() as stage:
            await stage.train()
            await stage.settle()
            goldens.trained = life.final_state(stage.history.objects, stage.namespace)
            await stage.serve()
            await stage.train_again()
            await stage.settle()
            goldens.whole = life.final_state(stage.history.objects, stage.namespace)
            goldens.writes, goldens.events = list(stage.proxy.writes), list(stage.proxy.events)
            await stage.verdict(goldens.whole)

    @asynccontextmanager
    async def _quiet(self) -> AsyncIterator[Stage]:
        """A stage with an operator at work, on which nothing goes wrong."""
        stage = self._stage()
        await stage.open()
        try:
            operator = await stage.add_operator()
            operator.start()
            await operator.ready()
            await operator.watching()
            yield stage
        finally:
            await stage.close()

    async def _run(self, case: Case) -> None:
        stage = self._stage()
        try:
            async with self._slots, _in_time(stage):
                goldens = await asyncio.shield(self._goldens)
                await stage.open()
                try:
                    await case.play(stage, goldens)
                finally:
                    self.tally.cases += 1
                    self.tally.injected += stage.injected
                    self.tally.starts += sum(operator.starts for operator in stage.operators)
                    for operator in stage.operators:
                        await operator.stop()
        finally:
            await stage.close()

    def _stage(self) -> Stage:
        return Stage(self._control, self._api, self._recorder, self._folder)


@asynccontextmanager
async def _in_time(stage: Stage) -> AsyncIterator[None]:
    """A case that hangs says where it was."""
    try:
        async with asyncio.timeout(CASE_SECONDS):
            yield
    except TimeoutError as error:
        raise AssertionError(
            f"not over within {CASE_SECONDS:g} s\n{stage.history.picture()}\n{stage.logs()}"
        ) from error


def cases_at_once() -> int:
    """A case waits more than it computes; each has an operator process of its own."""
    return max(4, 4 * len(os.sched_getaffinity(0)))


Play = Callable[[Stage, Goldens], Awaitable[Any]]
