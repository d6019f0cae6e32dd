"""buildah with its own storage below the cache, and builds that can reach package indexes the way this machine does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tools.console import output_of, run_logged
from tools.paths import cache

MANY_INTERMEDIATE = 200
"""Unnamed images that may pile up; each saves time while its inputs stay the same, all together they take gigabytes."""


def storage() -> tuple[Path, Path]:
    """Where images lie, and where what is mounted while building is noted."""
    return cache() / "buildah", Path("/run/finetune-buildah")


def command(*arguments: str) -> list[str]:
    """A buildah command line."""
    root, run = storage()
    return ["buildah", "--root", str(root), "--runroot", str(run), *arguments]


def exists(reference: str) -> bool:
    """Whether the image is in the storage."""
    return (
        subprocess.run(command("inspect", "--type=image", reference), capture_output=True, check=False).returncode == 0
    )


def access_to_indexes() -> list[str]:
    """Options by which a build uses this machine's certificate authorities, index addresses and package cache.

    All of it is mounted or a build argument of an early stage: nothing ends up in an image.
    """
    bundle = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    inside = f"/etc/ssl/certs/{bundle.name}"
    packages = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
    packages.mkdir(parents=True, exist_ok=True)
    options = [f"--volume={bundle.parent}:/etc/ssl/certs:ro", f"--volume={packages}:/var/cache/uv"]
    options += [f"--build-arg={name}={inside}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
    options += ["--build-arg=UV_CACHE_DIR=/var/cache/uv"]
    return options + [f"--build-arg={name}" for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX") if name in os.environ]


def build(reference: str, dockerfile: Path, context: Path, options: list[str]) -> None:
    """Build an image, re-using every layer whose inputs did not change. Raises `StepError`."""
    log = cache() / "logs" / f"image-{reference.partition(':')[0].rpartition('/')[2]}.log"
    # chroot isolation needs no container runtime and no network set-up of its own.
    argv = command("bud", "--isolation=chroot", "--layers", f"--file={dockerfile}", f"--tag={reference}", *options)
    run_logged(f"building {reference}", [*argv, str(context)], log)


def export(reference: str, layout: Path) -> None:
    """Write an image to a folder in OCI layout.

    Uncompressed, because then a layer has the same digest in both places and one that is there is not written again;
    buildah's own push cannot do that for this kind of folder.
    """
    root, run = storage()
    source = f"containers-storage:[overlay@{root}+{run}]{reference}"
    argv = ["skopeo", "--insecure-policy", "copy", "--dest-oci-accept-uncompressed-layers", source]
    target = f"oci:{layout}:{tag_in_layout(reference)}"
    run_logged(f"exporting {reference}", [*argv, target], cache() / "logs" / "image-export.log")


def tag_in_layout(reference: str) -> str:
    """The name under which an image stands in the layout's index."""
    return reference.rpartition("/")[2].replace(":", "-")


def images() -> list[dict[str, Any]]:
    """The images in the storage as buildah lists them, intermediate ones of builds included."""
    found: list[dict[str, Any]] = json.loads(output_of(command("images", "--all", "--json")))
    return found


def references() -> set[str]:
    """Names of the images in the storage."""
    return {name for image in images() for name in image.get("names") or []}


def remove(references: set[str]) -> None:
    """Remove images with what only they are built on."""
    if references:
        subprocess.run(command("rmi", *references), capture_output=True, check=False)
    if sum(not image.get("names") for image in images()) > MANY_INTERMEDIATE:
        subprocess.run(command("rmi", "--prune"), capture_output=True, check=False)


def remove_intermediate(layers: set[str]) -> None:
    """Remove unnamed images with one of these layers, given as in a layout: no named image needs them any more."""
    if not layers:
        return
    # The newest first: they build on what is older.
    for image in sorted(images(), key=lambda image: int(image["created"]), reverse=True):
        if not image.get("names") and layers & set(_layers_of(image["id"])):
            subprocess.run(command("rmi", "--force", image["id"]), capture_output=True, check=False)


def _layers_of(image: str) -> list[str]:
    found = json.loads(output_of(command("inspect", "--type=image", image)))
    return list(found["OCIv1"]["rootfs"]["diff_ids"])
