"""Pods as processes: real signals and exit codes, without paying the libraries' import each time."""

import json
import multiprocessing
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from finetune_contract.batching import BatchPlan, BatchProgress
from finetune_contract.results import Progress, TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store
from tools.ports import free_port

ProgressT = TypeVar("ProgressT", Progress, BatchProgress)

EVERY_STEP = {"interval_minutes": 0, "keep": 2}
"""Checkpoints, for pods that are killed at one."""

# A server process imports torch and its friends once; every pod is a fork of it. There is one server, which loads
# what was last asked for: both kinds of pods are asked for here.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["finetune_trainer.train.recipe", "finetune_batch.run"])


class Process(Generic[ProgressT]):
    """One incarnation of a pod."""

    shows: type[ProgressT]
    """What /progress answers."""
    deadline_seconds = 90.0

    def __init__(
        self,
        command: Callable[[list[str]], None],
        directory: Path,
        plan: TrainingPlan | BatchPlan,
        arguments: Mapping[str, object],
    ) -> None:
        """Start `command` in a fork: with the plan, a port, what `directory` is for, and `arguments`."""
        directory.mkdir(exist_ok=True)
        (directory / "plan.json").write_text(plan.to_json())
        self._port = free_port()
        self._log = directory / "termination-log"
        options = {
            "plan": directory / "plan.json",
            "scratch": directory,
            "termination-log": self._log,
            "port": self._port,
            **arguments,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        self._process = CONTEXT.Process(target=command, args=(words,))
        self._process.start()

    def progress(self) -> ProgressT | None:
        """What /progress answers; None while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/progress", timeout=2) as answer:
                return self.shows.model_validate_json(answer.read())
        except OSError:
            return None

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something while the pod runs."""
        end = time.monotonic() + self.deadline_seconds
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
        self._process.join(self.deadline_seconds)
        assert self._process.exitcode is not None, "the pod never ended"
        return self._process.exitcode

    def message(self) -> bytes:
        """Its termination message."""
        return self._log.read_bytes()


class Pod(Process[Progress]):
    """One rank of a training."""

    shows = Progress

    def __init__(
        self, store: Store, plan: TrainingPlan, uid: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._checkpoints = store.root / "runs" / plan.run_key / "checkpoints" / uid
        arguments = {"store": store.root, "pod-uid": uid}
        super().__init__(partial(_train, environment or {}), store.root.parent / f"pod-{uid}", plan, arguments)

    def sealed_step(self) -> int:
        """Step of the newest sealed checkpoint of this pod, 0 without one."""
        sealed = self._checkpoints.glob("checkpoint-*/manifest.json")
        return max((int(path.parent.name.removeprefix("checkpoint-")) for path in sealed), default=0)

    def result(self) -> TrainingResult:
        """Its termination message, parsed."""
        return TrainingResult.model_validate_json(self.message())


class Group(list[Pod]):
    """The pods of one attempt, in the order of their ranks."""

    @property
    def first(self) -> Pod:
        """The one that has checkpoints and a result."""
        return self[0]

    def exit_codes(self) -> list[int]:
        """Wait for their ends."""
        return [pod.exit_code() for pod in self]


def meeting(count: int) -> list[dict[str, str]]:
    """The environment of each rank of an attempt, who meet at a port of this machine; one alone meets nobody."""
    if count == 1:
        return [{}]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count), "LOCAL_RANK": "0"}
    return [{**shared, "RANK": str(rank)} for rank in range(count)]


def start_group(store: Store, plan: TrainingPlan, uid: str, **environment: str) -> Group:
    """A pod for each of the plan's ranks."""
    ranks = meeting(plan.parallelism.ranks)
    return Group(Pod(store, plan, f"{uid}-{rank}", {**environment, **own}) for rank, own in enumerate(ranks))


def finished(store: Store, plan: TrainingPlan, uid: str, **environment: str) -> TrainingResult:
    """What the plan's ranks leave at their end: the first a result, the others nothing."""
    group = start_group(store, plan, uid, **environment)
    assert set(group.exit_codes()) == {0}
    assert all(pod.message() == b"" for pod in group[1:])
    return group.first.result()


def _train(environment: Mapping[str, str], words: list[str]) -> None:
    from finetune_trainer.__main__ import main

    os.environ.update(environment)
    if "RECOMPUTE" in environment or "PADDED" in environment:
        import pytest

        if "RECOMPUTE" in environment:  # as on a GPU with a large model
            pytest.MonkeyPatch().setattr("finetune_trainer.train.fit._recomputes", lambda *_: True)
        else:  # as a model that cannot be packed
            pytest.MonkeyPatch().setattr("finetune_trainer.train.fit.is_segmentable", lambda _: False)
    raise SystemExit(main(["train", *words]))


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
