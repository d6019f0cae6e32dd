"""Content hashes that decide whether something is built, started or loaded again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def of_texts(*texts: str) -> str:
    """Twelve hexadecimal digits over the texts and where each ends."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def of_files(root: Path, files: Iterable[Path]) -> str:
    """Twelve hexadecimal digits over the files' paths relative to `root` and their contents, in any order given."""
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        data = file.read_bytes()
        digest.update(f"{file.relative_to(root)}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def sources(folder: Path) -> list[Path]:
    """Every file below `folder` that is source: no byte code, no editor or tool leftovers."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    ]
