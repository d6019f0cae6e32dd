"""The commands of `kubectl finetune`: arguments in, one call, exit code out.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 trained, but the gate was not passed.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from finetune_cli import acts, completion, follow, report_page, stored, view, watch
from finetune_cli.commands import cancel, chat, cost, events, init, status, submit, validate
from finetune_cli.compare import comparison
from finetune_cli.connecting import connect
from finetune_cli.errors import CliError, NotStartedError
from finetune_cli.kinds import JOBS, WORDS, RunKind
from finetune_cli.options import Context, Format, Name, Namespace, Of, Output, Timeout, answer, console, listed

PROGRAM = "kubectl-finetune"

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Commands(TyperGroup):
    """Ends a failed command with one line."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own signature
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            typer.echo(f"error: {view.clean(error)}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=Commands,
    name="kubectl finetune",
    help="Fine-tune language models on Kubernetes: follow FineTuneJobs and batches from a terminal or a CI job.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(name="watch")
def watch_run(
    name: Name,
    kind: Of = RunKind.JOB,
    timeout: Timeout = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Follow a FineTuneJob or BatchInference to its end: exit code 0 if ready, 1 if it failed, 3 if its gate did."""
    follow.to_the_end(connect(context, namespace).objects, kind, name, console(), timeout)


@app.command()
def logs(
    name: Name,
    kind: Of = RunKind.JOB,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt. Default: the newest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the pod ends.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the log of the pod that trains a FineTuneJob, or answers a BatchInference.

    Where the pod is gone, it is what its attempt has left in the store.
    """
    cluster = connect(context, namespace)
    found = cluster.objects.get(kind.plural, name)

    def log() -> Iterator[bytes]:
        try:
            return cluster.log(cluster.working_pod(kind, name, attempt), follow)
        except NotStartedError:
            if not stored.has_log(found, attempt):
                raise
            return iter([stored.fetch_log(cluster, found, attempt)])

    for piece in watch.once_started(log, lambda: cluster.objects.get(kind.plural, name)) if follow else log():
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()


class ReportKind(StrEnum):
    """What has a report."""

    DATASET = "dataset"
    JOB = "job"


@app.command()
def report(
    kind: Annotated[ReportKind, typer.Argument(help="dataset, or job for a FineTuneJob.")],
    name: Annotated[str, typer.Argument(help="Its name.", autocompletion=completion.named)],
    file: Annotated[str, typer.Option(help="Another file beside it, such as statistics.json.")] = stored.REPORT,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to save it; `-` prints it.")] = None,
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Show it in the browser.")] = True,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Fetch the report of a Dataset or FineTuneJob, save it and show it.

    A pod that lives for seconds reads it from the store: it needs the right to create and delete pods.
    """
    cluster = connect(context, namespace)
    resource = cluster.objects.get(WORDS[kind], name)
    content = stored.fetch(cluster, resource, file)
    if kind is ReportKind.JOB and file == stored.REPORT:
        content = report_page.with_status(content, resource)
    if output == Path("-"):
        sys.stdout.buffer.write(content)
        return
    path = output or Path(f"{name}-{file}")
    path.write_bytes(content)
    typer.echo(f"saved as {path}")
    if opened and file == stored.REPORT and sys.stdout.isatty():
        typer.launch(str(path))


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Two FineTuneJobs or more.", autocompletion=completion.jobs)],
    baseline: Annotated[
        list[str] | None, typer.Option("--baseline", help="Show the lead over this baseline only; may be repeated.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write it as a page, too.")] = None,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Compare FineTuneJobs: what they are made of, what was measured, and their lead over the baselines."""
    cluster = connect(context, namespace)
    jobs = [cluster.objects.get(JOBS, name) for name in names]
    table = comparison(jobs, baseline)
    answer(output, listed(jobs), lambda: table)
    if html is not None:
        html.write_text(report_page.page_of(table, " and ".join(names), len(names)), encoding="utf-8")


@app.command()
def suspend(name: Name, kind: Of = RunKind.JOB, namespace: Namespace = None, context: Context = None) -> None:
    """Pause a FineTuneJob or BatchInference: it frees its GPU, and keeps its checkpoint or its answers."""
    _say(acts.suspend(connect(context, namespace).objects, kind, name, wanted=True))


@app.command()
def resume(name: Name, kind: Of = RunKind.JOB, namespace: Namespace = None, context: Context = None) -> None:
    """Let a paused FineTuneJob go on from its newest checkpoint, or a BatchInference from its answers."""
    _say(acts.suspend(connect(context, namespace).objects, kind, name, wanted=False))


@app.command()
def rerun(
    name: Name,
    kind: Of = RunKind.JOB,
    token: Annotated[
        str | None, typer.Option(help="The word for spec.rerun. Default: the time.", metavar="WORD")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Look up the inputs of a FineTuneJob or BatchInference again, and let a failed run go on from what it has."""
    _say(acts.rerun(connect(context, namespace).objects, kind, name, token, datetime.now(UTC)))


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line, err=line.startswith("note: "))


for command in (
    init.init, validate.validate, submit.submit, status.status, events.events, cost.cost, cancel.cancel, chat.chat,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    """The entry point `kubectl-finetune`."""
    app()


if __name__ == "__main__":
    main()
