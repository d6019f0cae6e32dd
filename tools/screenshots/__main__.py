"""`python -m tools.screenshots DIRECTORY`: an SVG for each picture, as the commands draw them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from rich.console import Console

from finetune_cli import batch_page, deployment_page, page
from finetune_cli.commands.chat import beside
from finetune_cli.commands.cost import line_of, table_of
from finetune_cli.commands.events import events_table
from finetune_cli.commands.status import tables
from finetune_cli.commands.validate import show
from finetune_cli.compare import comparison
from finetune_cli.conversation import Voice
from finetune_cli.offline.validation import validate
from finetune_cli.view import JobBar, render_progress
from tools.console import exit_on_failure
from tools.screenshots import samples

WIDTH = 120


def _watch(console: Console) -> None:
    console.print(
        render_progress(samples.training(), [3.1, 2.6, 2.2, 1.9, 1.7, 1.3, 1.4, 1.1, 0.95, 0.81], samples.NOW)
    )


def _queue(console: Console) -> None:
    console.print(JobBar(samples.queued()))


def _result(console: Console) -> None:
    console.print(page.result(samples.gate_failed()))


def _chat(console: Console) -> None:
    voices = [
        Voice("support", answer="I'm sorry to hear that your invoice is wrong. Could you tell me more about it?"),
        Voice("triage", answer="billing"),
    ]
    console.print(beside(voices))


PICTURES: dict[str, tuple[str, Callable[[Console], None]]] = {
    "status": (
        "kubectl finetune status",
        lambda console: console.print(tables(samples.everything(), samples.NOW)),
    ),
    "status-wide": (
        "kubectl finetune status -o wide",
        lambda console: console.print(tables(samples.everything(), samples.NOW, wide=True)),
    ),
    "status-job": (
        "kubectl finetune status router",
        lambda console: console.print(page.job_page(samples.gate_failed(), samples.NOW)),
    ),
    "status-batch": (
        "kubectl finetune status label-tickets --kind batch",
        lambda console: console.print(batch_page.batch_page(samples.batch(), samples.NOW)),
    ),
    "status-deployment": (
        "kubectl finetune status support --kind deployment",
        lambda console: console.print(deployment_page.deployment_page(samples.deployment(), samples.NOW)),
    ),
    "watch": ("kubectl finetune watch triage", _watch),
    "watch-queued": ("kubectl finetune watch reply-writer", _queue),
    "submit": ("kubectl finetune submit router.yaml --watch", _result),
    "validate": (
        "kubectl finetune validate jobs.yaml",
        lambda console: show(validate([("jobs.yaml", samples.BAD_YAML)]), console),
    ),
    "events": (
        "kubectl finetune events triage", lambda console: console.print(events_table(samples.events(), samples.NOW)),
    ),
    "cost": (
        "kubectl finetune cost",
        lambda console: console.print(
            table_of([line_of(one) for one in [*samples.jobs(), samples.batch()]], everywhere=False, wide=False)
        ),
    ),
    "compare": (
        "kubectl finetune compare router summaries",
        lambda console: console.print(comparison([samples.gate_failed(), samples.ready()])),
    ),
    "chat": ("kubectl finetune chat support -m 'My invoice is wrong'", _chat),
}  # fmt: skip
"""File name -> the window's title, and what draws it."""


def picture(name: str) -> str:
    """The SVG of that name."""
    title, draw = PICTURES[name]
    console = Console(
        record=True, file=StringIO(), width=200 if name == "status-wide" else WIDTH, force_terminal=True,
        color_system="truecolor", highlight=False,
    )  # fmt: skip
    draw(console)
    svg = console.export_svg(title=title)
    # A page of documentation loads no fonts from elsewhere.
    return (
        "\n".join(line.rstrip() for line in re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).splitlines())
        + "\n"
    )


def main() -> None:
    """Write every picture."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tools.screenshots DIRECTORY")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        (directory / f"{name}.svg").write_text(picture(name), encoding="utf-8")


if __name__ == "__main__":
    exit_on_failure(main)
