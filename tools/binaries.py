"""The Go programs of the local cluster, built from `tools/go/*/go.mod` and cached by what they are built from.

`python3 -m tools.binaries [MODULE...]` builds them (all by default) and prints each folder.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tools import fingerprint
from tools.console import exit_on_failure, run_logged, say
from tools.paths import cache, exclusive
from tools.toolchain import GO_MODULES, go

FOR_CLUSTER = ("kubernetes", "coredns", "local-path-provisioner", "helm")
FOR_LATER = ("kueue", "kwok", "versitygw")
"""Built by the target that uses them; nothing in `make demo` does."""

KUBERNETES_VERSION = "v1.34.4"


def linker_flags(module: str) -> str:
    """Small binaries; Kubernetes also needs its version stamped, else it calls itself v0.0.0 and Kueue refuses it."""
    flags = ["-s", "-w"]
    if module == "kubernetes":
        major, minor = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            flags += [
                f"-X {package}.gitVersion={KUBERNETES_VERSION}",
                f"-X {package}.gitMajor={major}",
                f"-X {package}.gitMinor={minor}",
                f"-X {package}.gitTreeState=clean",
            ]
    return " ".join(flags)


def build_command(module: str, output: Path) -> list[str]:
    """`tool` stands for every package that the module names in a `tool` line."""
    return ["build", "-trimpath", f"-ldflags={linker_flags(module)}", "-o", f"{output}/", "tool"]


def folder_of(module: str) -> Path:
    """Where the module's programs are or will be; named after go.mod, go.sum and the flags, not after the compiler."""
    source = GO_MODULES / module
    content = fingerprint.of_files(source, [source / "go.mod", source / "go.sum"])
    return cache() / "go" / f"{module}-{fingerprint.of_texts(content, linker_flags(module))}"


def ensure(*modules: str) -> dict[str, Path]:
    """Build what is not cached; returns each module's folder. Two processes never build the same module at once."""
    folders = {module: folder_of(module) for module in modules}
    for module, folder in folders.items():
        if folder.exists():
            continue
        with exclusive(f"go-{module}"):
            if not folder.exists():
                build(module, folder)
    return folders


def build(module: str, folder: Path) -> None:
    """Compile one module into a new folder; a killed build leaves only a `.partial` one behind."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    compiler = go()
    # Static programs: they also go into images made from scratch.
    env = {"CGO_ENABLED": "0", "PATH": f"{compiler.parent}:{os.environ.get('PATH', '')}"}
    say(f"building {module} (once; a few minutes)")
    argv = [str(compiler), *build_command(module, partial)]
    run_logged(f"go build {module}", argv, cache() / "logs" / f"go-{module}.log", env=env, cwd=GO_MODULES / module)
    partial.rename(folder)


def main() -> None:
    """Build the modules named on the command line, or all."""
    for module, folder in ensure(*(sys.argv[1:] or (*FOR_CLUSTER, *FOR_LATER))).items():
        say(f"{module}\t{folder}")


if __name__ == "__main__":
    exit_on_failure(main)
