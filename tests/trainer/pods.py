"""Training pods as processes: real signals and exit codes, without paying the libraries' import each time."""

import json
import multiprocessing
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_contract.results import Progress, TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store

_DEADLINE_SECONDS = 90.0

# A server process imports torch and its friends once; every pod is a fork of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["finetune_trainer.train.recipe"])


def _main(arguments: list[str], environment: dict[str, str]) -> None:
    from finetune_trainer.__main__ import main

    os.environ.update(environment)
    if "RECOMPUTE" in environment or "PADDED" in environment:
        from finetune_trainer.train import fit

        if "RECOMPUTE" in environment:  # as on a GPU with a large model
            fit._recomputes = lambda *_: True
        else:  # as a model that cannot be packed
            fit.is_segmentable = lambda _: False
    raise SystemExit(main(arguments))


class Pod:
    """One incarnation of a training pod."""

    def __init__(
        self, store: Store, plan: TrainingPlan, uid: str, port: int, environment: dict[str, str] | None = None
    ) -> None:
        self._directory = store.root.parent / f"pod-{uid}"
        self._directory.mkdir(exist_ok=True)
        self._port = port
        self._checkpoints = store.root / "runs" / plan.run_key / "checkpoints" / uid
        (self._directory / "plan.json").write_text(plan.to_json())
        arguments = {
            "plan": self._directory / "plan.json",
            "store": store.root,
            "scratch": self._directory,
            "termination-log": self._directory / "termination-log",
            "port": port,
            "pod-uid": uid,
        }
        command = ["train", *(f"--{name}={value}" for name, value in arguments.items())]
        self._process = _CONTEXT.Process(target=_main, args=(command, environment or {}))
        self._process.start()

    def progress(self) -> Progress | None:
        """What /progress answers; None while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/progress", timeout=2) as answer:
                return Progress.model_validate_json(answer.read())
        except OSError:
            return None

    def sealed_step(self) -> int:
        """Step of the newest sealed checkpoint of this pod, 0 without one."""
        sealed = self._checkpoints.glob("checkpoint-*/manifest.json")
        return max((int(path.parent.name.removeprefix("checkpoint-")) for path in sealed), default=0)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something while the pod runs."""
        end = time.monotonic() + _DEADLINE_SECONDS
        while not condition():
            assert self._process.is_alive(), f"the pod ended first, with {self._process.exitcode}"
            assert time.monotonic() < end, "the pod never got there"
            self._process.join(0.005)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def exit_code(self) -> int:
        """Wait for its end; negative for a signal that killed it."""
        self._process.join(_DEADLINE_SECONDS)
        assert self._process.exitcode is not None, "the pod never ended"
        return self._process.exitcode

    def message(self) -> bytes:
        """Its termination message."""
        return (self._directory / "termination-log").read_bytes()

    def result(self) -> TrainingResult:
        """Its termination message, parsed."""
        return TrainingResult.model_validate_json(self.message())


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
