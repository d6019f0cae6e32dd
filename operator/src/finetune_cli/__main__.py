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

from finetune_cli import acts, completion, follow, page, report_page, stored, view, watch
from finetune_cli.commands import cancel, chat, cost, events, init, submit, validate
from finetune_cli.compare import comparison
from finetune_cli.connecting import connect
from finetune_cli.errors import CliError, NotStartedError
from finetune_cli.options import Context, Format, Name, Namespace, Output, Timeout, answer, console, listed

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
    help="Fine-tune language models on Kubernetes: follow FineTuneJobs from a terminal or a CI job.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(help="One FineTuneJob in full; none: a table of all.", autocompletion=completion.jobs),
    ] = None,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show all FineTuneJobs, or one in full."""
    cluster = connect(context, namespace)
    now = datetime.now(UTC)
    if name is not None:
        job = cluster.job(name)
        answer(output, job, lambda: page.job_page(job, now))
        return
    jobs = cluster.jobs()
    if jobs or output in (Format.JSON, Format.YAML):
        answer(output, listed(jobs), lambda: page.jobs_table(jobs, now, wide=output is Format.WIDE))
    else:
        typer.echo(f"No FineTuneJobs in namespace {cluster.namespace}.", err=True)


@app.command(name="watch")
def watch_job(
    name: Name,
    timeout: Timeout = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Follow a FineTuneJob until it ends: exit code 0 when it is ready, 1 when it failed, 3 when its gate did."""
    follow.to_the_end(connect(context, namespace), name, console(), timeout)


@app.command()
def logs(
    name: Name,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt. Default: the newest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the pod ends.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the log of a FineTuneJob's training pod; where the pod is gone, what its attempt has left in the store."""
    cluster = connect(context, namespace)
    job = cluster.job(name)

    def log() -> Iterator[bytes]:
        try:
            return cluster.log(cluster.training_pod(name, attempt), follow)
        except NotStartedError:
            if not stored.has_log(job, attempt):
                raise
            return iter([stored.fetch_log(cluster, job, attempt)])

    for piece in watch.once_started(log, lambda: cluster.job(name)) if follow else log():
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()


class ReportKind(StrEnum):
    """What has a report."""

    DATASET = "dataset"
    JOB = "job"


@app.command()
def report(
    kind: Annotated[ReportKind, typer.Argument(help="dataset, or job for a FineTuneJob.")],
    name: Annotated[str, typer.Argument(help="Its name.", autocompletion=completion.either)],
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
    resource = cluster.dataset(name) if kind is ReportKind.DATASET else cluster.job(name)
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
    html: Annotated[Path | None, typer.Option("--html", help="Write it as a page, too.")] = None,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Compare FineTuneJobs: what they are made of, and what was measured."""
    cluster = connect(context, namespace)
    jobs = [cluster.job(name) for name in names]
    table = comparison(jobs)
    answer(output, listed(jobs), lambda: table)
    if html is not None:
        html.write_text(report_page.page_of(table, " and ".join(names)), encoding="utf-8")


@app.command()
def suspend(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Pause a FineTuneJob: it saves a checkpoint and frees its GPU."""
    _say(acts.suspend(connect(context, namespace), name, wanted=True))


@app.command()
def resume(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Let a paused FineTuneJob go on from its newest checkpoint."""
    _say(acts.suspend(connect(context, namespace), name, wanted=False))


@app.command()
def rerun(
    name: Name,
    token: Annotated[
        str | None, typer.Option(help="The word for spec.rerun. Default: the time.", metavar="WORD")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Look up a FineTuneJob's inputs again, and try a failed run again from its checkpoint."""
    _say(acts.rerun(connect(context, namespace), name, token, datetime.now(UTC)))


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line, err=line.startswith("note: "))


for command in (init.init, validate.validate, submit.submit, events.events, cost.cost, cancel.cancel, chat.chat):
    app.command()(command)


def main() -> None:
    """The entry point `kubectl-finetune`."""
    app()


if __name__ == "__main__":
    main()
