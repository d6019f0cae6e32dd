"""Real servers and probers as subprocesses on loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tools.ports import free_port

START_SECONDS = 180
"""Importing torch and transformers takes most of a start, and minutes' worth of CPU when a machine is busy."""


def wait_until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait on a condition with a deadline."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Running:
    """A subprocess that answers HTTP."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def post(self, path: str, body: dict[str, object], seconds: float = 60) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=seconds)

    def answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.get(path).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, 0 when there is none; `name` may carry labels."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and line[0] != "#")


@contextmanager
def run(
    module: str, log: Path, *arguments: str, port: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    port = port or free_port()
    command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield Running(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.kill()
        process.wait(10)


@contextmanager
def serving(
    plan: Path, store: Path, adapters: Path, env: Mapping[str, str] | None = None, port: int | None = None
) -> Iterator[Running]:
    """A server that is up."""
    log = plan.with_suffix(".log")
    arguments = ("--plan", str(plan), "--store", str(store), "--adapters", str(adapters))
    with run("finetune_server", log, *arguments, port=port, env=env) as server:
        wait_until(lambda: server.answers("/health"), START_SECONDS, f"{plan.stem} serves")
        yield server


@contextmanager
def proving(plan: Path, adapters: Path, engine: str) -> Iterator[Running]:
    """A prober that answers; not necessarily ready."""
    log = plan.with_suffix(".prober.log")
    with run("finetune_prober", log, "--plan", str(plan), "--adapters", str(adapters), "--engine", engine) as prober:
        wait_until(lambda: prober.answers("/status"), START_SECONDS, "the prober answers")
        yield prober
