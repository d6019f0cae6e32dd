"""Real text of very mixed lengths that every development environment has: docstrings of its installed packages."""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path
from typing import NamedTuple

from tools.demo.make_base import texts_of

PACKAGES = ("accelerate", "datasets", "fsspec", "huggingface_hub", "networkx", "numpy", "peft", "trl")
"""Installed packages that are read, in the versions of `uv.lock`."""

LONGEST = 3200
"""Characters of a docstring: some 1,000 tokens; longer ones would be cut by TRL's default `max_length`."""


class Pair(NamedTuple):
    """A function's or class's header, and its docstring."""

    prompt: str
    completion: str


def pairs(rows: int, seed: int = 0) -> list[Pair]:
    """So many different docstrings under their headers, drawn by seed."""
    library = Path(sysconfig.get_paths()["purelib"])
    found: dict[str, Pair] = {}
    for package in PACKAGES:
        for file in sorted((library / package).rglob("*.py")):
            for text in texts_of(file):
                header, _, body = text.partition("\n")
                if body.strip() and len(text) <= LONGEST:
                    found.setdefault(body, Pair(f"{header}\n", body))
    return random.Random(seed).sample(list(found.values()), rows)
