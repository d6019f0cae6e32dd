"""Looks at a job or batch until it has ended, and shows every look: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.live import Live

from finetune_cli import facts
from finetune_cli.errors import CliError, GateFailedError, NotStartedError, UnreachableError
from finetune_cli.facts import Object
from finetune_cli.view import JobBar, duration_of, has_measurements, last_line, progress_line, waiting_for
from finetune_contract.failure import FailureReason

POLL_SECONDS = 1.0
LINE_SECONDS = 10.0
"""At least so often a plain line is said, so that a CI log shows life."""

OUTAGE_SECONDS = 120.0
"""An API server that is away for longer (an upgrade takes less) ends the watch."""

Answer = TypeVar("Answer")


class Lines:
    """Says a line when phase or attempt have changed, and else every ten seconds."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._news: tuple[str, int] | None = None
        self._said_at = 0.0

    def show(self, job: Object) -> None:
        """Say it, if it is time."""
        news = (facts.phase(job), facts.attempt(job))
        if news != self._news or self._clock() - self._said_at >= LINE_SECONDS:
            self._news, self._said_at = news, self._clock()
            self._say(progress_line(job))


def until_ended(
    look: Callable[[], Object],
    console: Console,
    timeout: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Object:
    """The job, when it is ready.

    Raises:
        GateFailedError: it has succeeded, but not passed its gate.
        CliError: it failed, is stalled, was not done within `timeout` seconds, or cannot be read.
    """
    started = seen_at = clock()
    job = look()
    bar = JobBar(job)
    lines = Lines(lambda line: console.print(line, markup=False, soft_wrap=True), clock)
    live: AbstractContextManager[object] = Live(bar, console=console) if console.is_terminal else nullcontext()
    with live:
        while True:
            bar.update(job)
            if not console.is_terminal:
                lines.show(job)
            if facts.succeeded(job):
                return job
            _raise_if_failed(job)
            if timeout is not None and clock() - started >= timeout:
                raise CliError(f"{facts.name_of(job)}: not done within {duration_of(timeout)}; {_still_to_come(job)}")
            sleep(POLL_SECONDS)
            try:
                job, seen_at = look(), clock()
            except UnreachableError:
                if clock() - seen_at > OUTAGE_SECONDS:
                    raise


def _still_to_come(job: Object) -> str:
    """What a job does that has not ended: it goes on, or waits for what somebody may have to mend."""
    if not facts.is_current(job):
        return "the operator has not seen its newest spec yet"
    if has_measurements(job):
        return f"it goes on by itself (`kubectl finetune watch {facts.called(job)}` looks again)"
    reason = facts.condition(job, "Ready").get("reason")
    words = f"{reason}: {waiting_for(job)}" if reason else waiting_for(job)
    return f"it is {facts.phase(job)}, and goes on when there is what it waits for: {words}"


def _raise_if_failed(job: Object) -> None:
    failure = facts.failure(job)
    if failure:
        name, called, message = facts.name_of(job), facts.called(job), last_line(failure.get("message"))
        if failure.get("reason") == FailureReason.GATE_FAILED.value:
            raise GateFailedError(f"{name}: GateFailed: {message}", job)
        # What failed before the first attempt (staging, a preflight) has no pod that trained, and so no log.
        more = "logs" if facts.attempt(job) else "events"
        raise CliError(
            f"{name}: {failure.get('reason')}: {message} "
            f"(`kubectl finetune status {called}` and `kubectl finetune {more} {called}` tell more)"
        )


def once_started(
    act: Callable[[], Answer], look: Callable[[], Object], sleep: Callable[[float], object] = time.sleep
) -> Answer:
    """The answer, as soon as the job has come so far; a job that has ended never will.

    Raises:
        NotStartedError: it has ended.
    """
    while True:
        try:
            return act()
        except NotStartedError:
            job = look()
            if facts.failure(job) or facts.succeeded(job):
                raise
        sleep(POLL_SECONDS)
