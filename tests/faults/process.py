"""The operator, as a process of its own behind a proxy of its own, with intervals that suit a test."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
from collections import defaultdict
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from finetune_operator.cluster import CHILD_KINDS, OWN_KINDS
from tests.faults.nursery import Child, Nursery
from tests.faults.proxy import Proxy
from tools.ports import free_port

QUICK = {
    "RESYNC_SECONDS": "2", "RELIST_SECONDS": "0.3", "WATCH_LAG_SECONDS": "0.5", "WATCH_IDLE_SECONDS": "3",
    "RETRY_SECONDS": "0.2", "OUTAGE_RETRY_SECONDS": "1", "REFUSAL_RETRY_SECONDS": "1", "REQUEST_SECONDS": "5",
    "REFERENCE_SECONDS": "0.5", "PROGRESS_POLL_SECONDS": "60", "LEASE_DURATION_SECONDS": "60",
    "LEASE_RENEW_SECONDS": "45",
    "LEASE_RETRY_SECONDS": "1",
}  # fmt: skip
"""Settings of all cases; in production they are ten to a hundred times as long.

But for the lease: a starved machine is no reason to lose it."""


@functools.cache
def _nursery() -> Nursery:
    return Nursery()


class Operator:
    """One replica. It is started again whenever it ends, as a kubelet would do."""

    def __init__(self, folder: Path, proxy: Proxy, namespace: str, name: str, **settings: str) -> None:
        self.name = name
        self.proxy = proxy
        self._folder = folder
        self._kubeconfig = folder / f"{name}.kubeconfig"
        self._log = folder / f"{name}.log"
        self._port = free_port()
        self._process: Child | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.starts = 0
        self.kills = 0
        self.exits: list[int] = []
        """Exit codes of ends that no test asked for."""
        self.is_wanted = True
        self._environment = {
            **{f"FINETUNE_{key}": value for key, value in {**QUICK, **settings}.items()},
            "FINETUNE_NAMESPACES": namespace,
            "FINETUNE_POD_NAMESPACE": settings.get("POD_NAMESPACE", namespace),
            "FINETUNE_POD_NAME": name,
            "FINETUNE_HEALTH_PORT": str(self._port),
            "KUBECONFIG": str(self._kubeconfig),
            "PATH": os.environ["PATH"],
        }

    def write_kubeconfig(self, token: str) -> None:
        """Where the proxy is, and with which token."""
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.proxy.port}"}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        partial = self._kubeconfig.with_suffix(".partial")
        partial.write_text(json.dumps(document))
        partial.replace(self._kubeconfig)

    def start(self) -> None:
        """Start it, and start it again whenever it ends while it is wanted."""
        self.is_wanted = True
        self.write_kubeconfig(self.proxy.token)
        self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    def kill(self) -> None:
        """SIGKILL; the supervisor starts it again."""
        if self._process is not None:
            self.kills += 1
            self._process.kill()
            self._process.wait()

    def put_down(self) -> None:
        """SIGKILL; it stays down until it is stopped and started."""
        self.is_wanted = False
        self.kill()

    async def stop(self) -> None:
        """SIGKILL, and stay down."""
        self.is_wanted = False
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def terminate(self) -> int:
        """SIGTERM, and stay down; answers the exit code."""
        self.is_wanted = False
        assert self._process is not None
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, 30)

    async def probe(self, path: str) -> int:
        """HTTP status of a probe; 0 if nobody answers."""
        return (await self._ask(path))[0]

    async def has_looked(self) -> bool | None:
        """Whether it leads and has looked at everything; None while its caches are not filled or it is behind."""
        if await self.probe("/readyz") != 200:
            return None
        counts = await self._counts()
        if not counts["leader_election_master_status"]:
            return False
        is_behind = counts["workqueue_depth"] or counts["reconcile_total"] < counts["objects"]
        return None if is_behind else True

    async def passes(self) -> float:
        """How many passes there have been since its start."""
        return (await self._counts())["reconcile_total"]

    async def _counts(self) -> defaultdict[str, float]:
        """Metrics, summed over their labels."""
        counts: defaultdict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families((await self._ask("/metrics"))[1]):
            for sample in family.samples:
                counts[sample.name.removeprefix("finetune_operator_")] += sample.value
        return counts

    async def _ask(self, path: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=2)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{self._port}{path}") as response,
            ):
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def ready(self, seconds: float = 90.0) -> None:
        """Wait until the caches are filled."""
        deadline = time.monotonic() + seconds
        while await self.probe("/readyz") != 200:
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} is not ready after {seconds:g} s:\n{self.log()[-3000:]}")
            await asyncio.sleep(0.1)

    async def watching(self, seconds: float = 90.0) -> None:
        """Wait until every kind is watched."""
        kinds = {f"watch {kind}" for kind in (*OWN_KINDS, *CHILD_KINDS)}
        deadline = time.monotonic() + seconds
        while missing := kinds - set(self.proxy.requests):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} has not asked to {', '.join(sorted(missing))}")
            await asyncio.sleep(0.05)

    def log(self) -> str:
        """All that it said, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _launch(self) -> None:
        self.starts += 1
        self._process = _nursery().start(self._environment, self._folder, self._log)

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            assert self._process is not None
            code = self._process.poll()
            if code is None or not self.is_wanted:
                continue
            if code != -9:
                self.exits.append(code)
            self._launch()
