"""The probes and the metrics, over HTTP.

Live: the event loop answers at all, Kopf's loop beats, and no pass has been running for minutes. Ready: the caches are
filled, on the leader and on the standby alike.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from finetune_operator import metrics
from finetune_operator.cache import Cache

LONGEST_PASS = 300.0
"""Seconds that a pass may take: a few dozen requests at the API client's own time-out of 30 s."""
LONGEST_SILENCE = 120.0
"""Seconds between two beats of Kopf's loop."""


class Health:
    """What the probes ask."""

    def __init__(
        self,
        cache: Cache,
        *,
        longest_pass: Callable[[], float],
        longest_wait: Callable[[], float],
        silence: Callable[[], float],
        is_synced: Callable[[], bool],
    ) -> None:
        """All in seconds: `longest_pass` and `longest_wait` of keys, `silence` since Kopf's last sign of life."""
        self._cache = cache
        self._longest_pass = longest_pass
        self._longest_wait = longest_wait
        self._silence = silence
        self._is_synced = is_synced

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application()
        application.router.add_get("/livez", self._live)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._metrics)
        return application

    async def serve(self, port: int) -> web.AppRunner:
        """Listen; the answer's `cleanup` ends it."""
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        return runner

    def faults(self) -> list[str]:
        """Why the process should be restarted."""
        found = []
        if (running := self._longest_pass()) > LONGEST_PASS:
            found.append(f"a pass has been running for {running:.0f} s")
        if (silence := self._silence()) > LONGEST_SILENCE:
            found.append(f"the watches' loop has been silent for {silence:.0f} s")
        return found

    async def _live(self, _: web.Request) -> web.Response:
        faults = self.faults()
        return web.Response(status=503 if faults else 200, text="; ".join(faults) or "ok")

    async def _ready(self, _: web.Request) -> web.Response:
        ready = self._is_synced()
        return web.Response(status=200 if ready else 503, text="ok" if ready else "the caches are not filled yet")

    async def _metrics(self, _: web.Request) -> web.Response:
        metrics.OBJECTS.clear()
        for (kind, phase, reason), count in self._cache.summaries.items():
            metrics.OBJECTS.labels(kind, phase, reason).set(count)
        metrics.OLDEST_TRANSITION.clear()
        for summary, since in self._cache.oldest_transitions().items():
            metrics.OLDEST_TRANSITION.labels(*summary).set(since)
        metrics.QUEUE_OLDEST.set(self._longest_wait())
        metrics.ADAPTERS.clear()
        for (namespace, state), count in self._cache.adapters.items():
            metrics.ADAPTERS.labels(namespace, state).set(count)
        metrics.IGNORED_GATES.clear()
        for namespace, count in self._cache.ignored_gates.items():
            metrics.IGNORED_GATES.labels(namespace).set(count)
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
