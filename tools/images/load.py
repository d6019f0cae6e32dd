"""From a folder in OCI layout into containerd, sending only the blobs that it does not have."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import IO, Any

from tools.cluster import containers
from tools.cluster.settings import Layout
from tools.console import PROGRESS_INTERVAL, StepError, say
from tools.images import buildah

NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def blob(layout: Path, digest: str) -> Path:
    """The file of a blob in an OCI layout."""
    return layout / "blobs" / digest.replace(":", "/")


def manifest_of(layout: Path, reference: str) -> dict[str, Any]:
    """The entry of an image in the layout's index."""
    tag = buildah.tag_in_layout(reference)
    for entry in json.loads((layout / "index.json").read_text())["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            found: dict[str, Any] = entry
            return found
    raise StepError(f"{reference} is not in {layout / 'index.json'}")


def digests_of(layout: Path, manifest: dict[str, Any]) -> list[str]:
    """Manifest, configuration and layers of an image."""
    content = json.loads(blob(layout, manifest["digest"]).read_text())
    return [manifest["digest"], content["config"]["digest"], *(layer["digest"] for layer in content["layers"])]


def load(layout: Path, reference: str, cluster: Layout) -> None:
    """Make the image usable for pods. Raises `StepError` with containerd's words."""
    manifest = manifest_of(layout, reference)
    digests = digests_of(layout, manifest)
    present = containers.blobs(cluster)
    missing = [digest for digest in digests if digest not in present]
    size = sum(blob(layout, digest).stat().st_size for digest in missing)
    say(f"  loading {reference}: {len(missing)} of {len(digests)} blobs, {size / 1e6:.0f} MB")
    index = {**manifest, "annotations": dict.fromkeys(NAMES, reference)}
    process = subprocess.Popen(
        containers.ctr(cluster, "images", "import", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    writer = threading.Thread(target=write_archive, args=(process.stdin, layout, index, missing))
    writer.start()
    while process.poll() is None:
        try:
            process.wait(PROGRESS_INTERVAL)
        except subprocess.TimeoutExpired:
            say(f"  ... loading {reference}")
    writer.join()
    if process.returncode != 0:
        raise StepError(
            f"loading {reference} into containerd: {process.stderr.read().decode(errors='replace').strip()}"
        )
    share_blobs(layout, digests, cluster)


def write_archive(output: IO[bytes], layout: Path, manifest: dict[str, Any], digests: list[str]) -> None:
    """Write an OCI archive of one image with some of its blobs. A reader that goes away is the reader's error."""

    def add_text(tar: tarfile.TarFile, name: str, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))

    try:
        with output, tarfile.open(fileobj=output, mode="w|", bufsize=1 << 20) as tar:
            add_text(tar, "oci-layout", {"imageLayoutVersion": "1.0.0"})
            for digest in digests:
                tar.add(blob(layout, digest), arcname=f"blobs/{digest.replace(':', '/')}")
            add_text(tar, "index.json", {"schemaVersion": 2, "manifests": [manifest]})
    except BrokenPipeError:
        pass


def share_blobs(layout: Path, digests: list[str], cluster: Layout) -> None:
    """Let the layout's blobs and containerd's be the same files: gigabytes that would lie on the disk twice."""
    store = cluster.images / "io.containerd.content.v1.content" / "blobs"
    for digest in digests:
        ours, theirs = blob(layout, digest), store / digest.replace(":", "/")
        if (
            theirs.exists()
            and theirs.stat().st_ino != ours.stat().st_ino
            and theirs.stat().st_dev == ours.stat().st_dev
        ):
            link = ours.with_suffix(".link")
            link.unlink(missing_ok=True)
            os.link(theirs, link)
            link.rename(ours)
