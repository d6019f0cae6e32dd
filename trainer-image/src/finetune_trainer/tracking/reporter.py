"""The trackers, as training sees them: words into a pipe that is never waited for, and what comes back."""

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice

from finetune_contract.base import Document
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.results import RunWarning, WarningReason
from finetune_contract.tracking import Tracker
from finetune_contract.training import TrainingPlan
from finetune_trainer.progress import ProgressBoard
from finetune_trainer.tracking.words import End, Opening, Outcome, Point, Said, Word, parameters_of

log = logging.getLogger(__name__)

_METRICS_A_LINE = 16
"""So that a line stays below PIPE_BUF: the kernel writes it as a whole, or says that there is no room."""

_SOURCE = "tracking"

_PATIENCE = {Outcome.FINISHED: 15.0, Outcome.FAILED: 10.0, Outcome.STOPPED: 3.0}
"""Seconds that trackers get for what is left; a pod that is told to stop has few."""


class Reporter:
    """The trackers' process; every method but `close` returns at once, whatever trackers do."""

    def __init__(self, plan: TrainingPlan, board: ProgressBoard) -> None:
        """Start it.

        Raises:
            OSError: It cannot be started.
        """
        assert plan.tracking is not None
        self._board = board
        self._said: dict[Tracker, Said] = {}
        self._lost = 0
        self._is_open = True
        # A session of its own: its libraries' processes end with it, and no signal for training reaches it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer", "track"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._listener = threading.Thread(target=self._listen, name="tracking", daemon=True)
        self._listener.start()
        self._write(
            Opening(
                plan=plan.tracking,
                job=f"{plan.namespace}/{plan.name}",
                run_key=plan.run_key,
                parameters=parameters_of(plan),
            )
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell trackers of a step; dropped and counted where they are too slow."""
        items, now = iter(metrics.items()), time.time()
        while some := dict(islice(items, _METRICS_A_LINE)):
            self._lost += not self._write(Word(point=Point(step=step, at=now, metrics=some)))

    def close(self, outcome: Outcome) -> None:
        """Say how the attempt has ended, and give trackers some seconds for what is left; once."""
        if not self._is_open:
            return
        self._is_open = False
        assert self._process.stdin is not None
        select.select([], [self._pipe], [], 1.0)  # room for one last word, where the process takes any at all
        seconds = _PATIENCE[outcome]
        self._write(Word(end=End(outcome=outcome, seconds=seconds, lost=self._lost)))
        try:
            self._process.stdin.close()
            self._process.wait(seconds + 1)
        except subprocess.TimeoutExpired:
            log.warning("tracking: not all could be sent within %.0f s", seconds)
        finally:
            self._kill()
        self._listener.join()  # everybody who could write to it is dead
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _write(self, document: Document) -> bool:
        try:
            os.write(self._pipe, document.to_json().encode() + b"\n")
        except OSError:  # no room, or nobody there
            return False
        return True

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                said = Said.model_validate_json(line)
            except ValueError:
                continue
            self._said[said.tracker] = said
            self._show()

    def _show(self) -> None:
        runs = tuple(said.run for said in self._said.values() if said.run)
        problems = [f"{said.tracker}: {said.problem}" for said in self._said.values() if said.problem]
        warning = RunWarning(
            reason=WarningReason.TRACKING_INCOMPLETE, message=("; ".join(problems) + "; training goes on")[-256:]
        )
        self._board.update(tracking=runs)
        self._board.warn(_SOURCE, (warning,) if problems else ())


@contextmanager
def tracked(plan: TrainingPlan, board: ProgressBoard) -> Iterator[Reporter | None]:
    """A reporter for as long as an attempt takes, that is told how it ended; None where nobody is to be told."""
    if plan.tracking is None or plan.tracking.model_dump(exclude_none=True) == {}:
        yield None
        return
    try:
        reporter = Reporter(plan, board)
    except OSError as error:
        log.warning("tracking: cannot be started: %s; training goes on", error)
        yield None
        return
    try:
        yield reporter
    except BaseException as error:
        is_stopped = isinstance(error, FineTuneError) and error.reason is FailureReason.PREEMPTED
        reporter.close(Outcome.STOPPED if is_stopped else Outcome.FAILED)
        raise
    else:
        reporter.close(Outcome.FINISHED)
