"""Kopf, embedded: its own thread and event loop, restarted for as long as the operator lives.

A thread, because Kopf takes itself for the owner of the loop it runs in: it replaces the signal handlers, and when a
watch breaks it cancels every task that was started after it, which would be the operator's own.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from finetune_operator import metrics
from finetune_operator.kopfstate import Forgetful, WatchedFrom, list_by

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two signs of life."""
RESTART_PAUSE = 1.0
PATIENCE = 5.0
"""Seconds that Kopf gets to stop."""


class Watches:
    """The watches of everything in the registry."""

    def __init__(
        self,
        registry: kopf.OperatorRegistry,
        namespaces: tuple[str, ...],
        are_possible: Callable[[], Awaitable[None]],
        watched_from: WatchedFrom,
    ) -> None:
        """Both functions are called in Kopf's loop.

        `are_possible` returns once the API server knows all kinds: Kopf looks only once. `watched_from` lists in Kopf's
        place.
        """
        self._registry = registry
        self._namespaces = namespaces
        self._are_possible = are_possible
        self._watched_from = watched_from
        self._beat = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._is_broken = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def silence(self) -> float:
        """Seconds since Kopf's loop last gave a sign of life; 0 before it was started."""
        return time.monotonic() - self._beat if self._thread.is_alive() else 0.0

    def start(self) -> None:
        """Begin to watch."""
        self._beat = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        asyncio.run(self._supervise())

    async def _supervise(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._note_failed_callback)
        beating = asyncio.create_task(self._give_signs_of_life())
        while not self._stop.is_set():
            try:
                await self._are_possible()
                await self._operate(beating)
            except Exception:  # whatever Kopf dies of, the answer is to start it again
                log.exception("the watches have failed and are started again")
            if not self._stop.is_set():
                metrics.WATCH_RESTARTS.inc()
                await asyncio.sleep(RESTART_PAUSE)
        beating.cancel()

    async def _operate(self, beating: asyncio.Task[None]) -> None:
        """Run Kopf to its end, and help it there."""
        self._is_broken.clear()
        list_by(self._watched_from)
        operating = asyncio.create_task(
            kopf.operator(
                registry=self._registry,
                settings=kopf.OperatorSettings(),
                memories=Forgetful(),
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                standalone=True,
                stop_flag=self._stop,
            )
        )
        failing = asyncio.create_task(self._is_broken.wait())
        await asyncio.wait({operating, failing}, return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        if not operating.done():
            await asyncio.wait({operating}, timeout=PATIENCE)
        if not operating.done():
            log.warning("the watches cannot be stopped in order: they are cancelled and started again")
            left = asyncio.all_tasks() - {asyncio.current_task(), beating}
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=PATIENCE)
            return
        await operating

    def _note_failed_callback(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Hear of an error that nobody waits for.

        When a watch has failed, Kopf stops all others; where one is being opened just then, its callback fails (Kopf
        1.45.2, `clients.api.stream`: there is no current task in a callback), and Kopf waits for that watch for ever.
        """
        loop.default_exception_handler(context)
        if "handle" in context:
            self._is_broken.set()

    async def _give_signs_of_life(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT)
