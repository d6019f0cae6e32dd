"""Watching Datasets, jobs and the deployment until they are ready: a live bar for people, lines for logs."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tools.console import StepError, say
from tools.demo.kubectl import POLL_SECONDS, SIGN_OF_LIFE_SECONDS, Namespace, Object, condition, holds


def until_ready(namespace: Namespace, kind: str, name: str, seconds: float, console: Console) -> Object:
    """Show how far an object is until it is Ready; raises StepError with its own words when it is Stalled."""
    deadline = time.monotonic() + seconds
    if console.is_terminal:
        return _bar(namespace, kind, name, deadline, console)
    return _lines(namespace, kind, name, deadline)


def _look(namespace: Namespace, kind: str, name: str, deadline: float) -> Object:
    item = namespace.get(kind, name)
    if holds(item, "Stalled"):
        failed = condition(item, "Stalled")
        log = namespace.last_words(f"finetune.dev/name={name}")
        hint = f"kubectl --namespace={namespace.name} describe {kind} {name}"
        raise StepError(f"{kind} {name}: {failed['reason']}: {failed['message']}\n{log}\n  look closer: {hint}")
    if time.monotonic() > deadline:
        ready = condition(item, "Ready")
        raise StepError(f"{kind} {name} is not ready in time: {ready.get('reason')}: {ready.get('message')}")
    return item or {}


def _bar(namespace: Namespace, kind: str, name: str, deadline: float, console: Console) -> Object:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<34}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(f"{kind} {name}", total=100, words="")
        while True:
            item = _look(namespace, kind, name, deadline)
            done = holds(item, "Ready")
            progress.update(task, completed=100 if done else percent_of(item), words=words_of(item))
            if done:
                return item
            time.sleep(POLL_SECONDS)


def _lines(namespace: Namespace, kind: str, name: str, deadline: float) -> Object:
    started = time.monotonic()
    spoke, last = 0.0, ""
    while True:
        item = _look(namespace, kind, name, deadline)
        now = time.monotonic()
        phase = str((item.get("status") or {}).get("phase"))
        if phase != last or now - spoke > SIGN_OF_LIFE_SECONDS:
            say(f"  {now - started:4.0f} s  {kind} {name}: {words_of(item)}")
            spoke, last = now, phase
        if holds(item, "Ready"):
            return item
        time.sleep(POLL_SECONDS)


def percent_of(item: Object) -> int:
    """Finished share of a job's steps."""
    return int(((item.get("status") or {}).get("progress") or {}).get("percent", 0))


def words_of(item: Object) -> str:
    """One line on where an object is."""
    status = item.get("status") or {}
    ready = condition(item, "Ready")
    if ready.get("status") == "True":
        return f"{status.get('phase')}: {ready.get('message', '')}"
    progress = status.get("progress")
    if not progress:
        return f"{status.get('phase', 'waiting')}: {ready.get('message', '')}"
    parts = [f"{progress.get('phase')} step {progress.get('step')}/{progress.get('totalSteps')}"]
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress.get("tokensPerSecond"):
        parts.append(f"{progress['tokensPerSecond']:,.0f} tokens/s")
    if progress.get("resumedFromStep"):
        parts.append(f"resumed from step {progress['resumedFromStep']}")
    return "  ".join(parts)
