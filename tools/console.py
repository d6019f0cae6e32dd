"""What a person sees while tools work: a line per step, a regular sign of life, errors that say where to look."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PROGRESS_INTERVAL = 8.0
"""Seconds between two signs of life of a long step; CI logs and people both take ten silent seconds for a hang."""

TAIL_LINES = 20
"""How much of a failed step's log is shown on the terminal; the rest is in the file that the message names."""


class StepError(Exception):
    """A step that cannot go on; the message says which step, why, and where the whole log is."""


def say(text: str) -> None:
    """Print one line at once, also when the output is a pipe."""
    print(text, flush=True)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file, indented for a message; empty when there is no such file."""
    if not log.exists():
        return ""
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line[:400]}" for line in text)


def failure(step: str, reason: str, log: Path) -> StepError:
    """The error of a step that has a log of its own."""
    return StepError(f"{step}: {reason}\n{tail(log)}\n  whole log: {log}")


def run_logged(
    step: str, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a long command with its output in `log`, printing that it still runs.

    `env` is added to the environment. Raises `StepError` when the command exits with another status than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            argv,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        try:
            while True:
                try:
                    status = process.wait(timeout=PROGRESS_INTERVAL)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  ... {step} ({time.monotonic() - started:.0f} s)")
        except BaseException:
            process.terminate()
            raise
    if status != 0:
        raise failure(step, f"`{' '.join(argv)[:300]}` ended with exit status {status}", log)
    say(f"  {step}: done in {time.monotonic() - started:.0f} s")


def output_of(argv: Sequence[str], *, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """The standard output of a short command. Raises `StepError` with its error output when it fails."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    if done.returncode != 0:
        raise StepError(
            f"`{' '.join(argv)[:300]}` ended with exit status {done.returncode}\n{done.stderr.strip()[-4000:]}"
        )
    return done.stdout


def wait_until(condition: Callable[[], bool], seconds: float, *, interval: float = 0.1, step: str = "") -> bool:
    """Ask `condition` until it holds or the time is over; returns whether it held. A named step shows that it waits."""
    started = time.monotonic()
    shown = started
    while not condition():
        now = time.monotonic()
        if now > started + seconds:
            return False
        if step and now > shown + PROGRESS_INTERVAL:
            say(f"  ... {step} ({now - started:.0f} s)")
            shown = now
        time.sleep(interval)
    return True


def exit_on_failure(main: Callable[[], None]) -> None:
    """Run a command's `main`; a failed step ends the process with its message and status 1 instead of a traceback."""
    try:
        main()
    except StepError as error:
        print(f"\nFAILED  {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
