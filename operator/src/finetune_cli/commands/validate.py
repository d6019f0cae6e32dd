"""`validate`: what the API server would refuse, found before it is asked."""

import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from finetune_cli.connecting import connect
from finetune_cli.errors import NotFoundError
from finetune_cli.facts import part
from finetune_cli.kinds import NATIVE, PLURALS
from finetune_cli.offline.problems import Level
from finetune_cli.offline.references import Key
from finetune_cli.offline.validation import Finding, Look, Report
from finetune_cli.offline.validation import validate as validated
from finetune_cli.options import Context, Format, Namespace, Output, answer, console
from finetune_cli.view import clean

SUFFIXES = {".yaml", ".yml", ".json"}

Files = Annotated[
    list[str], typer.Argument(help="YAML files, folders of them, or `-` for standard input.", metavar="FILE...")
]

STYLES = {Level.ERROR: "bold red", Level.NOTE: "yellow"}


def validate(
    files: Files,
    ask_cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Look up in the cluster what is named, but in none of the files: "
            "Datasets, jobs, claims, Secrets, ConfigMaps.",
        ),
    ] = False,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Check YAML files without a cluster: schema, rules, misspelt fields, and names that lead nowhere.

    Exit code 1 when something would be refused; notes alone are no failure.
    """
    report = validated(texts_of(files), asking(context, namespace) if ask_cluster else None)
    if output in (Format.TABLE, Format.WIDE):
        show(report, console())
    else:
        findings = [asdict(finding) | {"level": finding.level.value} for finding in report.findings]
        answer(output, {"checked": len(report.documents), "errors": report.errors, "findings": findings}, Text)
    if report.errors:
        raise typer.Exit(1)


def asking(context: str | None, namespace: str | None) -> Look:
    """Asks the cluster for objects; of Secrets only the names of their keys are kept."""
    objects = connect(context, namespace).objects

    def look(key: Key) -> Collection[str] | None:
        kind, where, name = key
        try:
            if kind in NATIVE:
                found = objects.native(kind, name, where or None)
                return {*part(found, "data"), *part(found, "binaryData")}
            objects.get(PLURALS[kind], name, where or None)
        except NotFoundError:
            return None
        return ()

    return look


def texts_of(files: list[str]) -> Iterator[tuple[str, str]]:
    """Name and text of every file that is meant; each is read once.

    Raises:
        typer.BadParameter: one cannot be read, or a folder has none.
    """
    seen: set[Path] = set()
    for name in files:
        if name == "-":
            yield "standard input", sys.stdin.read()
            continue
        for path in _paths(Path(name)):
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            try:
                yield str(path), path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise typer.BadParameter(f"{path} is not UTF-8 text (byte {error.start})") from error
            except OSError as error:
                raise typer.BadParameter(f"{path} cannot be read: {error.strerror}") from error


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES and one.is_file())
    if not found:
        raise typer.BadParameter(f"folder {path} has no {', '.join(sorted(SUFFIXES))} file")
    return found


def show(report: Report, where: Console) -> None:
    """A line for each finding, as compilers write them, and one that sums up."""
    for finding in report.findings:
        where.print(_line(finding), soft_wrap=not where.is_terminal)
    notes = len(report.findings) - report.errors
    words = f"{_count(len(report.documents), 'object')} checked: {_count(report.errors, 'error')}"
    if notes:
        words += f", {_count(notes, 'note')}"
    style = "red" if report.errors else "green"
    where.print(Text(words, style=style))


def _line(finding: Finding) -> Text:
    about = clean(" ".join(word for word in (finding.subject, finding.path) if word))
    return Text.assemble(
        (f"{clean(finding.file)}:{finding.line}: ", "bold"),
        (f"{finding.level.value}: ", STYLES[finding.level]),
        (f"{about}: " if about else "", "cyan"),
        clean(finding.message),
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
