"""Flags that pages give to kubectl and helm are flags of these programs."""

import re
import shutil
import subprocess
from functools import cache

import pytest

from tests.documents import ROOT, Word
from tests.unit.docs.test_commands import starting

PROGRAMS = {
    name: shutil.which(name) or shutil.which(name, path=str(ROOT / ".local/bin")) for name in ("kubectl", "helm")
}
GIVEN = [
    word for name in PROGRAMS for word in starting(name) if " -" in word.text and word.text.split()[1:2] != ["finetune"]
]
COMMAND = re.compile(r"^(create secret generic|config [a-z-]+|create [a-z]+|[a-z-]+)")

pytestmark = pytest.mark.skipif(not all(PROGRAMS.values()), reason="no kubectl or no helm: `make cluster` builds both")


@cache
def usage(program: str, *command: str) -> str:
    """The help of a subcommand, with the flags that all have."""
    path = PROGRAMS[program]
    assert path is not None
    questions = [[path, *command, "--help"], *([[path, "options"]] if program == "kubectl" else [])]
    return "".join(subprocess.run(line, capture_output=True, text=True, check=True).stdout for line in questions)


@pytest.mark.parametrize("word", [pytest.param(word, id=f"{word.place} {word.text[:50]}") for word in GIVEN])
def test_flags_exist(word: Word) -> None:
    # Without what another program says first, and what every program answers.
    typed = re.sub(r"\$\(.*?\)|--help\b", "", word.text.split(" # ")[0])
    program, *rest = typed.split()
    while rest and rest[0].startswith("-"):  # flags that every subcommand has, such as `-n team-a`
        rest = rest[2:]
    found = COMMAND.match(" ".join(rest))
    assert found, word.text
    text = usage(program, *found[0].split())
    for flag in [part.split("=")[0] for part in typed.split() if re.match(r"--?[a-z]", part)]:
        pattern = rf"{flag}[,=]|{flag}\s" if flag.startswith("--") else rf"(^|\s){flag}, "
        assert re.search(pattern, text, re.MULTILINE), f"{word.place}: {flag}"
