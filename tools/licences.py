"""`python -m tools.licences [FILE]`: under which licences the dependencies of the images and the CLI are.

From `uv.lock` (what is installed) and the installed packages' own metadata (what they say). Development tools are left
out: no image has them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker

from tools.console import StepError, exit_on_failure, say
from tools.paths import REPOSITORY

PROJECT = "finetune-operator"

ALLOWED = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
    *("CNRI-Python", "ISC", "MIT", "PSF-2.0", "Zlib"),
    # Weak copyleft, of files that we do not change and that anybody can exchange in an image.
    *("LGPL-2.1-or-later", "MPL-2.0"),
    # CUDA's libraries, which PyTorch's own wheels ask for: may be redistributed with an application.
    "LicenseRef-NVIDIA-Proprietary",
}
"""What may be in an image. GPL, AGPL, SSPL and anything that is not known are not."""

STATED = {
    "cel-python": "Apache-2.0",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "nvidia-nvtx": "Apache-2.0",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
}
"""Where the metadata says nothing, or several things: what the package's licence file or its publisher says."""

WORDS = (
    (r"apache", "Apache-2.0"),
    (r"\bmit\b", "MIT"),
    (r"lesser general public|lgpl", "LGPL-2.1-or-later"),
    (r"mozilla public|mpl", "MPL-2.0"),
    (r"python software foundation|psf", "PSF-2.0"),
    (r"\bisc\b", "ISC"),
    (r"bsd", "BSD-3-Clause"),
    (r"nvidia proprietary", "LicenseRef-NVIDIA-Proprietary"),
)
"""How packages without an SPDX expression write it."""


class Dependency(NamedTuple):
    """One package that is installed with us."""

    name: str
    version: str
    licence: str
    """An SPDX expression; empty when not known."""
    extras: tuple[str, ...]
    """The extras of ours that bring it; `contract` for what all share."""


def locked(lock: dict[str, Any]) -> dict[str, set[str]]:
    """Names of all packages that our extras install, with the extras that bring each."""
    packages = {package["name"]: package for package in lock["package"]}
    root = packages[PROJECT]
    found: dict[str, set[str]] = {}
    for extra, wanted in {"contract": root["dependencies"], **root["optional-dependencies"]}.items():
        for name in _closure(packages, wanted):
            found.setdefault(name, set()).add(extra)
    return found


def _closure(packages: dict[str, Any], wanted: list[dict[str, Any]]) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    waiting = list(wanted)
    while waiting:
        item = waiting.pop()
        if "marker" in item and not Marker(item["marker"]).evaluate({"extra": ""}):
            continue
        for extra in ("", *item.get("extra", ())):
            if (item["name"], extra) in seen:
                continue
            seen.add((item["name"], extra))
            package = packages[item["name"]]
            waiting += (
                package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
            )
    return iter({name for name, _ in seen})


def licence_of(name: str, says: Any) -> str:  # noqa: ANN401 - an email.message.Message, in a stub of its own
    """The SPDX expression of an installed package; empty when neither it nor we know."""
    if name in STATED:
        return STATED[name]
    if expression := says.get("License-Expression"):
        return str(expression)
    field = (says.get("License") or "").strip()
    if field in ALLOWED or re.fullmatch(r"[\w.-]+( (AND|OR|WITH) [\w.-]+)+|LicenseRef-[\w-]+", field):
        return str(field)
    classifiers = [text.split(" :: ")[-1] for text in says.get_all("Classifier", []) if text.startswith("License ::")]
    for text in (*classifiers, field[:60]):
        for pattern, spdx in WORDS:
            if re.search(pattern, text, re.IGNORECASE):
                return spdx
    return ""


def is_allowed(expression: str) -> bool:
    """Whether every part of an AND, and some part of each OR, may be used."""
    return bool(expression) and all(
        any(choice.strip(" ()") in ALLOWED for choice in part.split(" OR ")) for part in expression.split(" AND ")
    )


def dependencies() -> list[Dependency]:
    """All of them, by name. Raises `StepError` where one is not installed."""
    extras = locked(tomllib.loads((REPOSITORY / "uv.lock").read_text()))
    found = []
    for name in sorted(extras):
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise StepError(f"{name} is not installed: `make venv` first") from error
        licence = licence_of(name, installed.metadata)
        found.append(Dependency(name, installed.version, licence, tuple(sorted(extras[name]))))
    return found


def report(found: list[Dependency]) -> str:
    """A page with a line per package."""
    lines = ["# Licences of dependencies", "", "| package | version | licence | in |", "|---|---|---|---|"]
    lines += [f"| {item.name} | {item.version} | {item.licence} | {', '.join(item.extras)} |" for item in found]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write or print the report. Raises `StepError` for a licence that is not allowed."""
    found = dependencies()
    if wrong := [f"{item.name}: {item.licence or 'not known'}" for item in found if not is_allowed(item.licence)]:
        raise StepError("licences that are not allowed (tools/licences.py):\n  " + "\n  ".join(wrong))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(report(found))
    else:
        say(report(found))


if __name__ == "__main__":
    exit_on_failure(main)
