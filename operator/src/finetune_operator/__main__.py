"""`python -m finetune_operator`: fill the caches, watch, and work while this replica leads."""

import asyncio
import logging
import os
import signal
import sys
import time
from datetime import UTC, datetime

from pythonjsonlogger.json import JsonFormatter

from finetune_operator import memory
from finetune_operator.cache import Cache
from finetune_operator.cluster import OWN_KINDS, ApiServer
from finetune_operator.collection import Collector
from finetune_operator.engine import Engine
from finetune_operator.entries import Key
from finetune_operator.errors import ClusterError
from finetune_operator.events import Recorder
from finetune_operator.handlers import build_registry, connection
from finetune_operator.health import Health
from finetune_operator.kueue import QueuePoller
from finetune_operator.leader import Elector, LeadershipLostError
from finetune_operator.manifests.naming import Manifest
from finetune_operator.progress import ProgressPoller
from finetune_operator.proofs import ProofPoller
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile.kinds import KINDS
from finetune_operator.settings import Settings
from finetune_operator.sync import Synchroniser
from finetune_operator.traffic import TrafficPoller
from finetune_operator.watches import Watches

log = logging.getLogger("finetune_operator")

SWITCH_INTERVAL = 0.001
"""Seconds that Kopf's thread may keep the interpreter when the workers' thread wants it; Python's default is 5 ms,
which each of a worker's requests would wait for during a burst of events."""
GRACE = 20.0
"""Seconds that running passes get to finish at SIGTERM; the pod's grace period is longer."""
KINDS_PAUSE = 2.0


class Operator:
    """All parts of one replica, put together."""

    def __init__(self, settings: Settings) -> None:
        """Must be called in the event loop."""
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._cluster = ApiServer(connection, settings.request_seconds)
        self._cache = Cache()
        self._queue: WorkQueue[Key] = WorkQueue(self._loop)
        recorder = Recorder(self._cluster, settings.pod_name, _now)
        self._engine = Engine(
            cluster=self._cluster, cache=self._cache, queue=self._queue, kinds=KINDS, settings=settings,
            recorder=recorder, now=_now,
        )  # fmt: skip
        self._sync = Synchroniser(self._cluster, self._cache, self._engine.notify, settings)
        registry = build_registry(self._observe, settings)
        self._watches = Watches(registry, settings.namespaces, self._kinds_are_served_there, self._watched_from)
        self._elector = Elector(
            self._cluster,
            namespace=settings.pod_namespace,
            identity=settings.pod_name,
            duration=settings.lease_duration_seconds,
            renew_within=settings.lease_renew_seconds,
            retry=settings.lease_retry_seconds,
            monotonic=time.monotonic,
        )
        self._progress_poller = ProgressPoller(
            self._cache, self._queue.add_after, settings.progress_poll_seconds, settings.progress_per_second
        )
        self._proof_poller = ProofPoller(
            self._cache, self._queue.add_after, settings.progress_poll_seconds, settings.progress_per_second
        )
        self._traffic_poller = TrafficPoller(
            self._cache, self._queue.add_after, settings.progress_write_seconds, settings.progress_per_second
        )
        self._queue_poller = QueuePoller(
            self._cluster, self._cache, self._queue.add_after, settings.queue_poll_seconds, settings.progress_per_second
        )
        self._collector = Collector(self._cluster, self._cache, recorder, settings, _now)
        self._health = Health(
            self._cache,
            longest_pass=self._queue.longest_running,
            longest_wait=self._queue.longest_waiting,
            silence=self._watches.silence,
            is_synced=lambda: self._sync.is_synced,
        )

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stopped.set)
        probes = await self._health.serve(self._settings.health_port)
        living = asyncio.create_task(self._live(), name="operator")
        stopping = asyncio.create_task(stopped.wait(), name="signal")
        try:
            await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.is_set():
                log.info("asked to stop: finishing what is under way")
                self._queue.close()
                if self._elector.leads:
                    await asyncio.wait({living}, timeout=GRACE)
            if living.done():
                living.result()
        finally:
            living.cancel()
            stopping.cancel()
            await asyncio.wait({living, stopping})
            await self._elector.release()
            self._watches.stop()
            await probes.cleanup()
            await self._cluster.close()

    async def _live(self) -> None:
        await self._kinds_are_served()
        await self._sync.fill()
        memory.settle()
        self._watches.start()
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(self._sync.run(), name="sweep")
            await self._elector.campaign()
            polling = tasks.create_task(self._progress_poller.run(), name="progress")
            proving = tasks.create_task(self._proof_poller.run(), name="proofs")
            measuring = tasks.create_task(self._traffic_poller.run(), name="traffic")
            queueing = tasks.create_task(self._queue_poller.run(), name="queues")
            collecting = tasks.create_task(self._collector.run(), name="collection")
            holding = tasks.create_task(self._hold(), name="lease")
            await self._engine.work()
            for task in (sweeping, polling, proving, measuring, queueing, collecting, holding):
                task.cancel()

    async def _hold(self) -> None:
        try:
            await self._elector.hold()
        except LeadershipLostError as error:
            log.critical("%s: exiting at once", error)
            logging.shutdown()
            # Nothing may be written any more, not even by what a normal exit would finish.
            os._exit(1)

    async def _kinds_are_served(self) -> None:
        """Return once the API server knows our kinds."""
        while True:
            try:
                missing = set(OWN_KINDS) - await self._cluster.served_kinds()
                if not missing:
                    return
                log.warning("waiting for the CRDs of %s", ", ".join(sorted(missing)))
            except ClusterError as error:
                log.warning("waiting for the API server: %s", error)
            await asyncio.sleep(KINDS_PAUSE)

    async def _kinds_are_served_there(self) -> None:
        """The same, for Kopf's loop: the client belongs to ours."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._kinds_are_served(), self._loop))

    def _observe(self, change: str, manifest: Manifest) -> None:
        """From Kopf's thread to ours, in order."""
        self._loop.call_soon_threadsafe(self._sync.observe, change, manifest)

    async def _watched_from(self, kind: str, namespace: str | None) -> str:
        """Asked by Kopf's loop, answered by ours, which the client belongs to."""
        asked = self._sync.watched_from(kind, namespace)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, self._loop))


def _now() -> datetime:
    return datetime.now(UTC)


def set_up_logging(settings: Settings) -> None:
    """One line per message, for people or for machines."""
    handler = logging.StreamHandler()
    fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
    is_json = settings.log_format == "json"
    handler.setFormatter(JsonFormatter(fields) if is_json else logging.Formatter(fields))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # One line for each object that is listed or changes.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)


async def _run(settings: Settings) -> None:
    await Operator(settings).run()


def main() -> None:
    """Entry point."""
    settings = Settings.from_environment()
    set_up_logging(settings)
    sys.setswitchinterval(SWITCH_INTERVAL)
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
