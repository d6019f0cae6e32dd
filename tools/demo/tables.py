"""The demo's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from tools.demo.kubectl import Object

SYSTEMS = {"ZeroShot": "base, zero-shot", "FewShot": "base, few-shot", "Tuned": "tuned"}


class Answer(NamedTuple):
    """One held-out question and what was answered."""

    question: str
    expected: str
    base: str
    tuned: str


def scores(job: Object) -> dict[str, Object]:
    """System -> its ExactMatch score."""
    return {score["system"]: score for score in job["status"]["evaluation"] if score["metric"] == "ExactMatch"}


def accuracy_table(job: Object, majority: float) -> Table:
    """Accuracy on the held-out rows, before and after."""
    found = scores(job)
    rows = next(iter(found.values()))["rows"]
    table = Table(title=f"Which of 8 modules is it from? {rows} held-out rows")
    table.add_column("system")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_row("always the largest class", f"{majority:.1%}", "")
    for system, title in SYSTEMS.items():
        score = found[system]
        interval = f"{score['low']:.1%} to {score['high']:.1%}" if "low" in score else ""
        table.add_row(title, f"{score['value']:.1%}", interval, style="bold" if system == "Tuned" else "")
    return table


def answers_table(answers: list[Answer]) -> Table:
    """Questions answered by the base and by the adapter."""
    table = Table(title="Asked through the OpenAI client", show_lines=True)
    for title in ("docstring", "from", "base says", "adapter says"):
        table.add_column(title, overflow="fold")
    for answer in answers:
        # As Text: a bracket in a docstring or an answer is no markup.
        table.add_row(*(Text(words) for words in answer))
    return table


def time_table(seconds: Mapping[str, Mapping[str, float]]) -> Table:
    """Where the time went."""
    table = Table(title="Where the time went")
    table.add_column("")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for thing, stages in seconds.items():
        for number, (stage, value) in enumerate(stages.items()):
            table.add_row(thing if number == 0 else "", stage, f"{value:.2f}" if value < 1 else f"{value:.1f}")
    return table
