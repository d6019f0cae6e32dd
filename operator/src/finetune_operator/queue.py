"""A queue of keys with client-go's semantics: a key waits once, and never two workers have it at a time.

A key added while a worker has it waits until that worker is done. A key added for later is taken at the earliest of
its times. A key that fails is put back with exponential back-off and jitter, for each key by itself. What people wait
for is taken first: edits before changes of children, and those before what is only looked at to be sure.
"""

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from finetune_operator import metrics

K = TypeVar("K")

FIRST_DELAY = 0.005
LONGEST_DELAY = 300.0
"""Seconds of back-off after the first failure (doubled with each) and at most; client-go's are 5 ms and 1000 s."""


class Urgency(IntEnum):
    """Keys of a higher one are taken first; those of one in the order in which they came."""

    RESYNC = 0
    """Looked at to be sure: everything, when a replica begins to lead."""
    CHANGE = 1
    """A child or a reference has changed, or a wait is over."""
    EDIT = 2
    """Somebody has created or edited the resource, and it has not been looked at since."""


class Closed(Exception):  # noqa: N818 - not an error
    """The queue gives out no more keys."""


class Handle(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Stop it."""


class Clock(Protocol):
    """The part of an event loop that the queue needs; a test has its own."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        """Call after so many seconds."""


class WorkQueue(Generic[K]):
    """Keys that wait for workers."""

    def __init__(self, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        """`jitter` gives numbers in [0, 1)."""
        self._clock = clock
        self._jitter = jitter
        self._ready: dict[Urgency, deque[K]] = {urgency: deque() for urgency in sorted(Urgency, reverse=True)}
        """Keys in the order of their coming; one whose urgency was raised is left behind in the lower line."""
        self._lines: dict[K, Urgency] = {}
        """Key that waits for a worker -> the line in which it counts."""
        self._dirty: dict[K, tuple[float, Urgency]] = {}
        """Key -> when it was added, and how urgent it is."""
        self._processing: dict[K, float] = {}
        """Key -> when it was taken."""
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._sequence = 0
        self._failures: dict[K, int] = {}
        self._timer: Handle | None = None
        self._rings_at = math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, key: K, urgency: Urgency = Urgency.CHANGE) -> None:
        """Have a key worked on as soon as possible; if it waits already, at most move it to a more urgent line."""
        self._due.pop(key, None)
        since, known = self._dirty.get(key, (None, None))
        if known is not None and known >= urgency:
            return
        if since is None:
            metrics.QUEUE_ADDS.inc()
        self._dirty[key] = (self._clock.time() if since is None else since, urgency)
        if key not in self._processing:
            self._append(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have a key worked on in so many seconds, or earlier if it is due earlier anyway."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.time() + seconds
        if key in self._dirty or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._later, (due, self._sequence, key))
        self._arm()

    def retry(self, key: K, longest: float = LONGEST_DELAY) -> float:
        """Put a failed key back after its back-off, of which this answers the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        metrics.QUEUE_RETRIES.inc()
        delay = float(min(longest, FIRST_DELAY * 2 ** min(failures, 30))) * (0.5 + self._jitter() / 2)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """A key succeeded: its next failure is its first."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Take a key; `done` must follow. Raises Closed once the queue is closed."""
        while not self._lines and not self._closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # Another worker must get what this one was woken for.
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        if self._closed:
            raise Closed
        return self.take()

    def take(self) -> K:
        """Take a key now; IndexError if none is ready."""
        key = self._first()
        now = self._clock.time()
        metrics.QUEUE_SECONDS.observe(now - self._dirty.pop(key)[0])
        metrics.QUEUE_DEPTH.set(len(self._lines))
        self._processing[key] = now
        return key

    def done(self, key: K) -> None:
        """A worker is done with a key, however it went."""
        del self._processing[key]
        if key in self._dirty:
            self._append(key)

    def close(self) -> None:
        """Give out no more keys; workers finish what they have."""
        self._closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def longest_running(self) -> float:
        """Seconds since the key that a worker has had for longest was taken; 0 if all are idle."""
        return max((self._clock.time() - taken for taken in self._processing.values()), default=0.0)

    def longest_waiting(self) -> float:
        """Seconds since the key was added that has waited longest; 0 if none waits."""
        return max((self._clock.time() - since for since, _ in self._dirty.values()), default=0.0)

    def _append(self, key: K) -> None:
        is_moved = key in self._lines
        urgency = self._lines[key] = self._dirty[key][1]
        self._ready[urgency].append(key)
        metrics.QUEUE_DEPTH.set(len(self._lines))
        if not is_moved:
            self._wake()

    def _first(self) -> K:
        """The key that has waited longest in the most urgent line."""
        for urgency, line in self._ready.items():
            while line:
                key = line.popleft()
                if self._lines.get(key) == urgency:
                    del self._lines[key]
                    return key
        raise IndexError("no key is ready")

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        """Have the timer ring when the next key is due."""
        if not self._later or self._rings_at <= self._later[0][0]:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._later[0][0]
        self._timer = self._clock.call_later(max(0.0, self._rings_at - self._clock.time()), self._release)

    def _release(self) -> None:
        self._timer, self._rings_at = None, math.inf
        now = self._clock.time()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            # Another time in `_due`, or none: the key was given an earlier time, or added, since.
            if self._due.get(key) == due:
                self.add(key)
        self._arm()
