"""`make venv`: the development environment `.venv`, exactly as `uv.lock` says, with a uv that can read it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tools.console import exit_on_failure, run_logged
from tools.paths import REPOSITORY, cache
from tools.toolchain import new_virtual_environment

UV_VERSION = "0.13.8"
"""The same as in both Dockerfiles (a test compares them)."""


def version(text: str) -> tuple[int, ...]:
    """`uv 0.13.8 (...)` as (0, 13, 8); () when it is something else."""
    found = re.match(r"uv (\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def uv() -> Path:
    """The machine's uv if it is new enough, else one from the package index in a cached virtual environment."""
    if found := shutil.which("uv"):
        text = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        if version(text) >= version(f"uv {UV_VERSION}"):
            return Path(found)
    environment = cache() / "python" / f"uv-{UV_VERSION}"
    new_virtual_environment(environment, f"uv=={UV_VERSION}")
    return environment / "bin" / "uv"


def main() -> None:
    """Create or update `.venv`."""
    env = {"UV_PYTHON_DOWNLOADS": "never"} if "UV_PYTHON_DOWNLOADS" not in os.environ else {}
    argv = [str(uv()), "sync", "--frozen", "--all-extras", "--all-groups"]
    run_logged("installing .venv from uv.lock", argv, cache() / "logs" / "uv-sync.log", env=env, cwd=REPOSITORY)


if __name__ == "__main__":
    exit_on_failure(main)
