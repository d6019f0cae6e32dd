"""What the documentation says: its pages, their fenced blocks and the code within their sentences."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))
"""CHANGELOG.md is not among them: it tells of what was."""

FENCE = re.compile(r"(?ms)^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Block(NamedTuple):
    """A fenced block."""

    place: str
    """File and line, for messages."""
    language: str
    text: str


class Word(NamedTuple):
    """A piece of code within a sentence or a table."""

    place: str
    text: str


def blocks(*languages: str) -> Iterator[Block]:
    """The fenced blocks of some languages."""
    for page in PAGES:
        text = page.read_text()
        for found in FENCE.finditer(text):
            if found["language"] in languages:
                yield Block(_place(page, text, found.start()), found["language"], textwrap.dedent(found["text"]))


def words() -> Iterator[Word]:
    """Everything between single backticks, outside of fenced blocks."""
    for page in PAGES:
        text = page.read_text()
        prose = FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
        for found in INLINE.finditer(prose):
            yield Word(_place(page, prose, found.start()), found[1])


def command_lines() -> Iterator[Word]:
    """What people are told to type: lines of console blocks (after `$ `, if there are any), and code in sentences."""
    for block in blocks("console", ""):
        lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        for line in typed:
            for command in re.split(r"\s+(?:&&|;|\|\|?)\s+|; ", line.split("  # ")[0]):
                yield Word(block.place, command.strip())
    yield from words()


def completed(value: Any) -> Any:
    """A document without the `...` that stand for what a page leaves out, and with a digest for `sha256:...`."""
    if isinstance(value, dict):
        return {name: completed(item) for name, item in value.items() if name != "..."}
    if isinstance(value, list):
        return [completed(item) for item in value if item != "..."]
    return "sha256:" + "0" * 64 if value == "sha256:..." else value


def _place(page: Path, text: str, at: int) -> str:
    return f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, at) + 1}"
