"""A queue of keys with client-go's semantics: a key waits once, and never two workers have it at a time.

A key added while a worker has it waits until that worker is done. A key added for later is taken at the earliest of
its times. A key that fails is put back with exponential back-off and jitter, for each key by itself.
"""

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from finetune_operator import metrics

K = TypeVar("K")

FIRST_DELAY = 0.005
LONGEST_DELAY = 300.0
"""Seconds of back-off after the first failure (doubled with each) and at most; client-go's are 5 ms and 1000 s."""


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
        self._ready: deque[K] = deque()
        self._dirty: dict[K, float] = {}
        """Key -> when it was added."""
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
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have a key worked on as soon as possible; nothing if it waits already."""
        self._due.pop(key, None)
        if key in self._dirty:
            return
        metrics.QUEUE_ADDS.inc()
        self._dirty[key] = self._clock.time()
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
        while not self._ready and not self._closed:
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
        key = self._ready.popleft()
        now = self._clock.time()
        metrics.QUEUE_SECONDS.observe(now - self._dirty.pop(key))
        metrics.QUEUE_DEPTH.set(len(self._ready))
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

    def _append(self, key: K) -> None:
        self._ready.append(key)
        metrics.QUEUE_DEPTH.set(len(self._ready))
        self._wake()

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
