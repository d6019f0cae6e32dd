"""The operator as a process of its own, as the chart runs it: its own memory, processor time and metrics."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tools.bench.operator.fakes import CLAIM
from tools.cluster.controlplane import DIES_WITH_PARENT, ControlPlane, cpu_seconds
from tools.console import failure
from tools.ports import free_port

READY_SECONDS = 120.0
STOP_SECONDS = 30.0


class Operator:
    """`async with Operator(plane, namespace) as operator:` from its first instruction to its SIGTERM."""

    def __init__(self, plane: ControlPlane, namespace: str, **settings: str) -> None:
        """Settings are named as in `finetune_operator.settings`."""
        self._log = plane.folder / "operator.log"
        self._port = free_port()
        chosen = {
            "namespaces": namespace,
            "pod_namespace": namespace,
            "claim_name": CLAIM,
            "health_port": str(self._port),
            **settings,
        }
        self._environment = {
            **{f"FINETUNE_{name.upper()}": value for name, value in chosen.items()},
            "KUBECONFIG": str(plane.kubeconfig),
            "PATH": os.environ["PATH"],
        }

    async def __aenter__(self) -> Self:
        self.started = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
                [*DIES_WITH_PARENT, sys.executable, "-m", "finetune_operator"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return cpu_seconds(self._process.pid)

    @property
    def rss_megabytes(self) -> float:
        """Resident memory now."""
        return self._memory("VmRSS")

    @property
    def peak_rss_megabytes(self) -> float:
        """The most resident memory so far."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> float:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

    async def metric(self, sample: str, **labels: str) -> float:
        """Sum of a metric's samples with these labels; 0 while there is none."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
                session.get(f"http://127.0.0.1:{self._port}/metrics") as response,
            ):
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0.0
        return sum(
            found.value
            for family in text_string_to_metric_families(text)
            for found in family.samples
            if found.name == sample and all(found.labels.get(name) == value for name, value in labels.items())
        )

    async def until(self, sample: str, least: float, seconds: float = READY_SECONDS, **labels: str) -> float:
        """Wait until a metric has at least this value; answers the seconds since the process was started."""
        while await self.metric(sample, **labels) < least:
            late = time.monotonic() > self.started + seconds
            if late or self._process.poll() is not None:
                raise failure("operator", f"{sample} did not get to {least:g}", self._log)
            await asyncio.sleep(0.05)
        return time.monotonic() - self.started
