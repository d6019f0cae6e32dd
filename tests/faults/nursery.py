"""Operators that start at once: a process that has imported everything forks for each of them.

Importing is a second of processor time, most of a case's, and no fault of interest happens meanwhile. What is forked is
a process as every other: it has its own environment, log and event loop, and can be killed at any time.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from tools.cluster.controlplane import DIES_WITH_PARENT
from tools.paths import REPOSITORY

PR_SET_PDEATHSIG = 1


class Nursery:
    """The process that forks, seen from the tests. A request and its answer are a line of JSON each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [*DIES_WITH_PARENT, sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )

    def start(self, environment: dict[str, str], folder: Path, log: Path) -> Child:
        """An operator that runs in `folder` and appends what it says to `log`."""
        return Child(self, self.ask({"environment": environment, "folder": str(folder), "log": str(log)}))

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request; takes milliseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


class Child:
    """One operator; what `subprocess.Popen` would be."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self._pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._code = self._nursery.ask({"poll": self._pid})
        return self._code

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for the exit code."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"operator {self._pid} has not ended after {seconds:g} s")
            time.sleep(0.005)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        # Until its exit code was asked for, the pid is its own.
        if self.poll() is None:
            os.kill(self._pid, number)


# --- in the process that forks


def serve() -> None:
    """Answer requests until the tests are gone."""
    from finetune_operator import __main__ as operator

    gc.collect()
    gc.freeze()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer = _poll(request["poll"]) if "poll" in request else _fork(request, operator.main)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _fork(request: dict[str, Any], main: Any) -> int:
    pid = os.fork()
    return pid or _live(request, main)


def _live(request: dict[str, Any], main: Any) -> NoReturn:
    """As if `python -m finetune_operator` had been started."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir(request["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(request["environment"])
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        logging.shutdown()
        os._exit(code)


if __name__ == "__main__":
    serve()
