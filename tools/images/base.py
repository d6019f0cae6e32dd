"""The base image of local builds: Debian bookworm with Python, made by debootstrap; the public one needs a registry."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from tools import fingerprint
from tools.console import run_logged
from tools.images import buildah
from tools.paths import cache, exclusive

SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
LEFT_OUT = (
    "var/cache/apt/archives",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/lib/apt/lists",
    "var/log",
)
DOCKERFILE = "FROM scratch\nADD rootfs.tar /\n"


def reference() -> str:
    """The base image's name; changes with what is asked of debootstrap."""
    return f"localhost/finetune-base:{fingerprint.of_texts(SUITE, PACKAGES, *LEFT_OUT, DOCKERFILE)}"


def archive() -> Path:
    """The root file system as a tar archive, made once. Needs root."""
    file = cache() / "base" / f"{reference().rpartition(':')[2]}.tar"
    with exclusive("base"):
        if not file.exists():
            folder = file.with_suffix(".partial")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(folder / "rootfs")]
            run_logged("debootstrap of the base image", argv, cache() / "logs" / "debootstrap.log")
            with tarfile.open(folder / "rootfs.tar", "w") as tar:
                tar.add(folder / "rootfs", arcname=".", filter=without_left_outs)
            (folder / "rootfs.tar").rename(file)
            shutil.rmtree(folder)
    return file


def without_left_outs(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Drop what apt can fetch again; the folders themselves stay."""
    name = entry.name.removeprefix("./")
    inside = any(name.startswith(f"{path}/") or (name == path and not entry.isdir()) for path in LEFT_OUT)
    return None if inside else entry


def ensure() -> str:
    """Make the base image unless it is there; returns its name."""
    name = reference()
    if not buildah.exists(name):
        file = archive()
        context = file.with_suffix(".context")
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE)
        (context / "rootfs.tar").hardlink_to(file)
        buildah.build(name, context / "Dockerfile", context, [])
        shutil.rmtree(context)
    return name
