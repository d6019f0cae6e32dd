"""Watching Datasets, jobs and the deployment until they are ready, drawn as `kubectl finetune watch` draws a job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from finetune_cli import facts
from finetune_cli.view import JobBar, progress_line
from finetune_cli.watch import Lines
from tools.console import StepError, say
from tools.demo.kubectl import Namespace, Object, condition

Thing = tuple[str, str]
"""Kind and name."""

LOOK_SECONDS = 2.0
"""Between two looks: each is a process on cores that a local training could use."""


class _Line:
    """A line about an object that has no progress of its own."""

    def __init__(self, item: Object) -> None:
        self._item = item

    def update(self, item: Object) -> None:
        """Take the object's newest state."""
        self._item = item

    def __rich__(self) -> Text:
        return Text(progress_line(self._item))


def until_ready(namespace: Namespace, kind: str, name: str, seconds: float, console: Console) -> Object:
    """One object, as `until_all_ready`."""
    return until_all_ready(namespace, [(kind, name)], seconds, console)[0]


def until_all_ready(namespace: Namespace, things: Sequence[Thing], seconds: float, console: Console) -> list[Object]:
    """Show how far objects are until each is ready: live on a terminal, else a line at least every ten seconds.

    Raises:
        StepError: one of them is stalled, in its own words, or not ready within `seconds`.
    """
    deadline = time.monotonic() + seconds
    bars = [JobBar({}) if kind == "finetunejob" else _Line({}) for kind, _ in things]
    lines = [Lines(lambda line: say(f"  {line}"), time.monotonic) for _ in things]
    ready: dict[int, Object] = {}
    live: AbstractContextManager[object] = Live(Group(*bars), console=console) if console.is_terminal else nullcontext()
    with live:
        while True:
            for at, (kind, name) in enumerate(things):
                if at in ready:
                    continue
                item = _look(namespace, kind, name)
                bars[at].update(item)
                if not console.is_terminal:
                    lines[at].show(item)
                if facts.succeeded(item):
                    ready[at] = item
                elif time.monotonic() > deadline:
                    raise _trouble(namespace, kind, name, f"not ready after {seconds:.0f} s", condition(item, "Ready"))
            if len(ready) == len(things):
                return [ready[at] for at in range(len(things))]
            time.sleep(LOOK_SECONDS)


def _look(namespace: Namespace, kind: str, name: str) -> Object:
    """The object; raises StepError when it will never be ready by itself."""
    item = namespace.get(kind, name) or {"metadata": {"name": name}}
    if failed := facts.failure(item):
        raise _trouble(namespace, kind, name, "failed", failed)
    return item


def _trouble(namespace: Namespace, kind: str, name: str, what: str, reason: Object) -> StepError:
    """What the condition says, the last words of its pods, and what to run next."""
    log = namespace.last_words(f"finetune.dev/name={name}")
    return StepError(
        f"{kind} {name} {what}: {reason.get('reason')}: {reason.get('message')}\n{log}\n"
        f"  look closer:  kubectl --namespace={namespace.name} describe {kind} {name}\n"
        f"  start afresh: kubectl delete namespace {namespace.name} && make demo"
    )
