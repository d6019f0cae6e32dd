"""What may follow `kubectl finetune`: kubectl asks a program named `kubectl_complete-finetune`, which this is."""

import contextlib
import io
import os
import shlex
import sys

import typer

from finetune_cli.__main__ import PROGRAM, app

FILES, NO_FILES = 0, 4
"""What the shell does where it is offered nothing, by the numbers of kubectl's completion (Cobra's directives)."""
TAKES_FILES = {"validate", "submit"}


def main() -> None:
    """Words so far in, choices and a last line `:NUMBER` out."""
    words = sys.argv[1:] or [""]
    choices = _choices(words)
    takes_files = words[0] in TAKES_FILES and len(words) > 1 and not words[-1].startswith("-")
    typer.echo(choices + f":{FILES if takes_files and not choices else NO_FILES}")


def _choices(words: list[str]) -> str:
    """What typer offers fish, whose format is Cobra's: a choice a line, with a tab and a word about it."""
    line = shlex.join([PROGRAM, *words[:-1]]) + " " + words[-1]
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    asked = {
        variable: "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": line,
    }  # fmt: skip
    said = io.StringIO()
    os.environ |= asked
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            app(args=[], prog_name=PROGRAM, complete_var=variable)
    finally:
        for name in asked:
            del os.environ[name]
    return "".join(f"{line}\n" for line in said.getvalue().splitlines() if line)
