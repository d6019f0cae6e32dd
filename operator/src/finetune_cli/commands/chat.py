"""`chat`: the base and its adapters side by side, in a terminal or for a script."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from finetune_cli import completion
from finetune_cli.connecting import connect
from finetune_cli.conversation import Settings, Voice, ask_all, models_of
from finetune_cli.kinds import DEPLOYMENTS
from finetune_cli.options import Context, Format, Namespace, Output, answer, console
from finetune_cli.view import clean

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster


def chat(
    name: Annotated[str, typer.Argument(help="The ModelDeployment.", autocompletion=completion.deployments)],
    message: Annotated[
        list[str] | None,
        typer.Option("--message", "-m", help="Say this and end; several are said one after another.", metavar="TEXT"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Ask this model only; may be given again. Default: the base and every adapter."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length limit of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 answers the same every time.")] = 0.0,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Talk to a deployment's base model and adapters side by side.

    It goes by way of the API server, so it needs the right to create services/proxy, and no port-forward. Where
    NetworkPolicies keep the API server away from serving pods, list its addresses among the chart's clients.
    """
    if not message and not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here: give --message")
    cluster = connect(context, namespace)
    voices = [Voice(one) for one in models_of(cluster.objects.get(DEPLOYMENTS, name), model)]
    settings = Settings(max_tokens, temperature, system)
    if message:
        _say(cluster, name, voices, message, settings, output)
    else:
        _talk(cluster, name, voices, settings)


def _say(
    cluster: "Cluster", name: str, voices: list[Voice], messages: list[str], settings: Settings, output: Format
) -> None:
    """Each message to each model; a failure ends it."""
    terminal = console()
    said = []
    for text in messages:
        turn(cluster, name, voices, text, settings, terminal, live=terminal.is_terminal and output is Format.TABLE)
        failure = next((voice.failure for voice in voices if voice.failure), None)
        if failure:
            raise failure
        said += [{"message": text, "model": voice.model, "answer": voice.answer} for voice in voices]
        if not terminal.is_terminal and output in (Format.TABLE, Format.WIDE):
            for voice in voices:
                # One model's answer alone is what a script wants.
                heading = f"{voice.model}: " if len(voices) > 1 else ""
                typer.echo(heading + voice.answer)
    if output in (Format.JSON, Format.YAML):
        answer(output, said, Text)


def _talk(cluster: "Cluster", name: str, voices: list[Voice], settings: Settings) -> None:
    """Until the person has had enough; a failure is told, and one may go on."""
    terminal = console()
    terminal.print("Say something; /reset forgets what was said, an empty line or Ctrl-D ends.", style="dim")
    while True:
        try:
            text = Prompt.ask("[bold]you[/]", console=terminal, default="", show_default=False).strip()
        except EOFError:
            return
        if not text:
            return
        if text == "/reset":
            for voice in voices:
                voice.messages.clear()
            continue
        turn(cluster, name, voices, text, settings, terminal, live=True)


def turn(
    cluster: "Cluster",
    name: str,
    voices: list[Voice],
    text: str,
    settings: Settings,
    terminal: Console,
    *,
    live: bool,
) -> None:
    """One message to each model; live shows the answers as they come."""
    threads = ask_all(cluster.objects, name, voices, text, settings)
    if not live:
        for thread in threads:
            thread.join()
        return
    with Live(get_renderable=lambda: beside(voices), console=terminal, refresh_per_second=12) as view:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
        view.refresh()


def beside(voices: list[Voice]) -> Table:
    """The answers so far, each under its model's name."""
    table = Table.grid(padding=(0, 3, 0, 0), expand=True)
    for _ in voices:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(Text(clean(voice.model), style="bold cyan") for voice in voices))
    table.add_row(*map(_answer_of, voices))
    return table


def _answer_of(voice: Voice) -> Text:
    if voice.failure:
        return Text(clean(voice.failure), style="red")
    return Text("\n".join(map(clean, voice.answer.splitlines())) or "…")
