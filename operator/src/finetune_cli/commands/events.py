"""`events`: what Kubernetes and the operator have said about an object, its Jobs and its pods."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from finetune_cli import completion, facts
from finetune_cli.connecting import connect
from finetune_cli.facts import Object, part
from finetune_cli.kinds import KINDS, WORDS
from finetune_cli.options import Context, Format, Namespace, Output, answer, listed
from finetune_cli.view import duration, last_line, plain_table, text


class Kind(StrEnum):
    """What has events."""

    JOB = "job"
    DATASET = "dataset"
    DEPLOYMENT = "deployment"
    BATCH = "batch"


_CHILD = r"-((prepare|stage|preflight|evaluate|resolve|export|serve|batch)-)?[0-9a-f]{6,10}(-[a-z0-9-]+)?"
"""What the operator, and the controllers of Jobs and Deployments after it, put behind a name."""


def events(
    name: Annotated[str, typer.Argument(help="Its name.", autocompletion=completion.named)],
    kind: Annotated[Kind, typer.Option(help="What it is.")] = Kind.JOB,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List the events of a FineTuneJob or another of our objects, its Jobs and its pods, the newest last.

    Kubernetes forgets events after an hour; what became of each attempt stays in the status.
    """
    cluster = connect(context, namespace)
    cluster.objects.get(WORDS[kind], name)
    found = about(cluster.objects.core("events"), KINDS[WORDS[kind]], name)
    if not found and output in (Format.TABLE, Format.WIDE):
        typer.echo(f"No events of {name} in the last hour.", err=True)
        return
    answer(output, listed(found), lambda: events_table(found, datetime.now(UTC)))


def about(found: list[Object], kind: str, name: str) -> list[Object]:
    """The events of an object and of what was made for it, the newest last."""

    def belongs(event: Object) -> bool:
        subject = part(event, "involvedObject")
        whose = str(subject.get("name"))
        if subject.get("kind") in KINDS.values():
            return subject["kind"] == kind and whose == name
        # A ModelDeployment's Deployment and Service have its own name.
        return bool(re.fullmatch(re.escape(name) + f"({_CHILD}){'?' if kind == 'ModelDeployment' else ''}", whose))

    return sorted(filter(belongs, found), key=_when)


def _when(event: Object) -> str:
    series = part(event, "series").get("lastObservedTime")
    times = (
        series,
        event.get("lastTimestamp"),
        event.get("eventTime"),
        part(event, "metadata").get("creationTimestamp"),
    )
    return str(next((time for time in times if time), ""))


def events_table(found: list[Object], now: datetime) -> Table:
    """One line for each."""
    table = plain_table("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE")
    for event in found:
        span = facts.age(_when(event), now)
        count = part(event, "series").get("count") or event.get("count") or 1
        subject = part(event, "involvedObject")
        warning = event.get("type") == "Warning"
        table.add_row(
            ("-" if span is None else duration(span)) + (f" (x{count})" if count > 1 else ""),
            text(event.get("type"), "yellow" if warning else ""),
            text(event.get("reason"), "bold" if warning else ""),
            text(f"{str(subject.get('kind')).lower()}/{subject.get('name')}"),
            text(last_line(event.get("message"))),
        )
    return table
