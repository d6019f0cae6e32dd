"""`init`: a few questions, or flags, and three YAMLs in a folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.prompt import Prompt

from finetune_cli import scaffold
from finetune_cli.facts import Object
from finetune_cli.offline.problems import Level
from finetune_cli.offline.validation import validate
from finetune_cli.options import console
from finetune_cli.scaffold import Answers, Method

Answer = TypeVar("Answer")

DATA_HELP = (
    "Rows: a file of JSON lines, https://..., configmap://NAME/KEY, pvc://CLAIM/PATH, s3://... or a Hub dataset."
)
BASE_HELP = "Base model: a Hub model, pvc://CLAIM/PATH, s3://BUCKET/PREFIX, or job:NAME for another job's result."


def init(
    folder: Annotated[Path, typer.Argument(help="Where the files go; made if it is not there.")] = Path(),
    name: Annotated[str | None, typer.Option(help="Name of the job, and of its model.")] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    method: Annotated[Method | None, typer.Option(help="How it learns. Default: SFT.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, max=64, help="GPUs of the training pod. Default: 1.")] = None,
    queue: Annotated[str | None, typer.Option(help="A Kueue LocalQueue to wait in.")] = None,
    token_secret: Annotated[
        str | None, typer.Option(help="Secret with a Hub token under the key `token`.", metavar="NAME")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Write a Dataset, a FineTuneJob and a ModelDeployment, each field with its explanation.

    Asks for what is not given, on a terminal; elsewhere --name, --data and --base must be given.
    """
    _only_if_answerable(name, data, base)
    asks = sys.stdin.isatty() and None in (name, data, base)
    token = {"name": token_secret, "key": "token"} if token_secret else None
    answers = Answers(
        name=_asked("Name of the job, and of its model", name, _named),
        data=_asked(DATA_HELP.rstrip("."), data, lambda words: _data(words, token)),
        base=_asked(BASE_HELP.rstrip("."), base, lambda words: _parsed(scaffold.base_model, words, token)),
        method=method or (_ask_method() if asks else Method.SFT),
        gpus=gpus if gpus is not None else (_asked("GPUs", None, _count, "1") if asks else 1),
        queue=queue,
    )
    texts = scaffold.files(answers)
    _refuse_errors(texts)
    _write(folder, texts, overwrite=overwrite)
    where = "." if folder == Path() else str(folder)
    typer.echo(f"next: `kubectl finetune submit {where} --watch`; `kubectl finetune validate {where}` after an edit")


def _only_if_answerable(name: str | None, data: str | None, base: str | None) -> None:
    missing = [flag for flag, value in (("--name", name), ("--data", data), ("--base", base)) if value is None]
    if missing and not sys.stdin.isatty():
        raise typer.BadParameter(f"nobody can be asked here: give {', '.join(missing)}")


def _asked(question: str, given: str | None, parse: Callable[[str], Answer], default: str | None = None) -> Answer:
    """The answer that was given as a flag, or else is typed; typed ones are asked for until they are good."""
    if given is not None:
        return parse(given)
    while True:
        terminal = console()
        if default is None:
            words = Prompt.ask(question, console=terminal)
        else:
            words = Prompt.ask(question, console=terminal, default=default)
        try:
            return parse(words.strip())
        except typer.BadParameter as error:
            terminal.print(error.message, style="red", markup=False)


def _ask_method() -> Method:
    terminal = console()
    for one, rows in scaffold.ROWS.items():
        terminal.print(f"  [bold]{one.value:<5}[/] {rows}")
    words = Prompt.ask("You have", console=terminal, choices=[one.value for one in Method], default="SFT")
    return Method(words)


def _named(words: str) -> str:
    probe = Answers(words, {"inline": {"jsonl": "{}"}}, {"huggingFace": {"repo": "a/b"}})
    for one in validate(list(scaffold.files(probe).items())).findings:
        if one.level is Level.ERROR:
            raise typer.BadParameter(f"{words!r} cannot be a name: {one.message}")
    return words


def _count(words: str) -> int:
    if not words.isdecimal() or int(words) > 64:
        raise typer.BadParameter(f"{words!r} is no number from 0 to 64")
    return int(words)


def _data(words: str, token: Object | None) -> Object:
    path = Path(words)
    if not path.is_file():
        return _parsed(scaffold.data_source, words, token)
    content = path.read_bytes()
    if len(content) > scaffold.MOST_INLINE_BYTES:
        raise typer.BadParameter(
            f"{words} has {len(content):,} bytes, and a YAML may hold {scaffold.MOST_INLINE_BYTES:,} of them: "
            "put it where a pod can read it (pvc://, s3://, https://) and name that"
        )
    try:
        return {"inline": {"jsonl": scaffold.json_lines(content)}}
    except ValueError as error:
        raise typer.BadParameter(f"{words}: {error}; put it where a pod can read it and name that") from error


def _parsed(parse: Callable[..., Object], *arguments: object) -> Object:
    try:
        return parse(*arguments)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _refuse_errors(texts: dict[str, str]) -> None:
    errors = [one for one in validate(list(texts.items())).findings if one.level is Level.ERROR]
    if errors:
        raise typer.BadParameter("; ".join(f"{one.path}: {one.message}" for one in errors))


def _write(folder: Path, texts: dict[str, str], *, overwrite: bool) -> None:
    there = [name for name in texts if (folder / name).exists()]
    if there and not overwrite:
        raise typer.BadParameter(
            f"{folder / there[0]} is there already; --overwrite replaces it, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            typer.echo(f"wrote {folder / name}")
    except OSError as error:
        raise typer.BadParameter(f"{folder} cannot be written: {error.strerror}") from error
