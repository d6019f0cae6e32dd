"""`python -m finetune_trainer track`: the trackers' process. Reads points from standard input until it ends.

Each tracker has a thread and a queue of its own, so that one that is down does not hold up the other. What it says goes
to standard output; libraries that print are sent to standard error.
"""

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from finetune_contract.tracking import TrackedRun
from finetune_trainer.tracking.tracker import Refused, Tracker
from finetune_trainer.tracking.words import End, Opening, Point, Said, Word

log = logging.getLogger(__name__)

_UNTOLD = 5.0
"""Seconds that trackers get for what is left when training went away without a word."""

QUEUED = 20_000
"""Points that wait for one tracker, at most: some megabytes, and hours of training."""

_AT_ONCE = 200
"""Points that are sent together."""

_SHORTEST_WAIT, _LONGEST_WAIT = 1.0, 30.0
"""Seconds between two tries."""


class Courier:
    """Brings points to one tracker, in a thread; says so when that does not work, and when it works again."""

    def __init__(self, tracker: Tracker, say: Callable[[Said], None]) -> None:
        """Take the tracker, and whom to tell about it."""
        self._tracker, self._say = tracker, say
        self._points: queue.Queue[Point] = queue.Queue(QUEUED)
        self._ending = threading.Event()
        self._end: End | None = None
        self._lost = self._taken = 0
        self._run: TrackedRun | None = None
        self._problem: str | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)

    def take(self, point: Point) -> None:
        """Queue a point; one too many is counted, not waited for."""
        self._taken += 1
        try:
            self._points.put_nowait(point)
        except queue.Full:
            self._lost += 1

    def end(self, end: End | None) -> None:
        """Nothing more comes; None: training went away without a word."""
        self._end = end
        self._ending.set()

    def _work(self) -> None:
        try:
            self._persist(self._open)
            while not (self._ending.is_set() and self._points.empty()):
                if some := self._next():
                    self._lost += len(some)
                    self._persist(lambda some=some: self._tracker.log(some))  # type: ignore[misc]
                    self._lost -= len(some)
            if self._end is not None:
                outcome = self._end.outcome
                self._persist(lambda: self._tracker.finish(outcome))
        except Refused as error:
            self._tell(str(error))
        except _GivenUp as error:
            self._lost += self._points.qsize()
            self._tell(str(error))
        lost = self._lost + (self._end.lost if self._end else 0)
        if lost and self._problem is None:
            self._tell("")

    def _open(self) -> None:
        self._run = self._tracker.open()
        self._problem = None
        self._say(Said(tracker=self._tracker.kind, run=self._run))

    def _next(self) -> list[Point]:
        found: list[Point] = []
        try:
            found.append(self._points.get(timeout=0.2))
            while len(found) < _AT_ONCE:
                found.append(self._points.get_nowait())
        except queue.Empty:
            pass
        return found

    def _persist(self, action: Callable[[], None]) -> None:
        """Try until it works; once nothing more comes, only a few times more."""
        wait = _SHORTEST_WAIT
        while True:
            try:
                action()
            except Refused:
                raise
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                if self._ending.is_set() and wait > _SHORTEST_WAIT:
                    raise _GivenUp(problem) from error
                self._tell(problem)
                self._ending.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                if self._problem is not None:
                    self._problem = None
                    self._say(Said(tracker=self._tracker.kind, run=self._run))
                return

    def _tell(self, problem: str) -> None:
        lost = self._lost + (self._end.lost if self._end else 0)
        counted = f"{lost} of {self._taken + (self._end.lost if self._end else 0)} points were not sent"
        text = "; ".join(part for part in (problem, counted if lost else "") if part)[:160]
        if text != self._problem:
            self._problem = text
            log.warning("%s: %s", self._tracker.kind, text)
            self._say(Said(tracker=self._tracker.kind, run=self._run, problem=text))


class _GivenUp(Exception):  # noqa: N818 - says what happened
    """It did not work, and there is no time left."""


def trackers_of(opening: Opening) -> list[Tracker]:
    """Those that the plan names."""
    found: list[Tracker] = []
    if opening.plan.mlflow:
        from finetune_trainer.tracking.mlflow import Mlflow

        found.append(Mlflow(opening.plan.mlflow, opening))
    if opening.plan.weights_and_biases:
        from finetune_trainer.tracking.weightsandbiases import WeightsAndBiases

        found.append(WeightsAndBiases(opening.plan.weights_and_biases, opening))
    return found


def main(_argv: Sequence[str]) -> int:
    """Serve one attempt; does not return."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what ends it is the end of its input
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="tracking: %(message)s", stream=sys.stderr, force=True)
    output = _own_output()
    lock = threading.Lock()

    def say(said: Said) -> None:
        with lock:
            try:
                output.write(said.to_json() + "\n")
                output.flush()
            except OSError:  # training is gone
                pass

    couriers = [Courier(tracker, say) for tracker in trackers_of(Opening.model_validate_json(sys.stdin.readline()))]
    for courier in couriers:
        courier.thread.start()
    end = None
    for line in sys.stdin:
        word = Word.model_validate_json(line)
        end = word.end or end
        if word.point:
            for courier in couriers:
                courier.take(word.point)
    deadline = time.monotonic() + (end.seconds if end else _UNTOLD)
    for courier in couriers:
        courier.end(end)
    for courier in couriers:
        courier.thread.join(max(0.0, deadline - time.monotonic()))
    # Not by returning: libraries' own last acts could take as long as they like.
    os._exit(0)


def _own_output() -> TextIO:
    """Standard output for what this process says; whatever else is printed goes to standard error."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(own, "w", encoding="utf-8")
