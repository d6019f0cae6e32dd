"""Which images there are, what goes into each, and the tag that follows from it. Pure but for reading the sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools import fingerprint

CONTEXT_FILES = (
    "pyproject.toml",
    "uv.lock",
    "LICENSE",
    "README.md",
    ".dockerignore",
    "trainer-image/gguf-converter.sh",
    "trainer-image/gguf-converter.txt",
)
CONTEXT_FOLDERS = ("operator/src", "trainer-image/src")
"""What `.dockerignore` lets through; both images install the same wheel."""


@dataclass(frozen=True)
class Image:
    """One of the product's images."""

    name: str
    """Its key in `.local/images.json`."""
    repository: str
    dockerfile: str
    """Path in the repository."""

    def reference(self, repository: Path, base: str) -> str:
        """The image's name and a tag over all of its inputs."""
        files = [repository / self.dockerfile, *(repository / name for name in CONTEXT_FILES)]
        files += [file for folder in CONTEXT_FOLDERS for file in fingerprint.sources(repository / folder)]
        content = fingerprint.of_files(repository, files)
        return f"{self.repository}:dev-{fingerprint.of_texts(base, content)}"


OPERATOR = Image("operator", "localhost/finetune-operator", "operator/Dockerfile")
TRAINER = Image("trainer", "localhost/finetune-trainer", "trainer-image/Dockerfile")
ALL = (OPERATOR, TRAINER)
