"""Removing images that newer builds have replaced, from all three places where they take gigabytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tools.cluster import containers
from tools.cluster.settings import Layout
from tools.images import buildah, load

KEEP = 20
"""Images kept of each repository: they share all but a few megabytes, and pods or other clones may still use them."""

SPARE = 8 * 10**9
"""Bytes of layers kept of each repository beside the newest image's: one more set of the trainer's dependencies, which
take gigabytes, but change only with `uv.lock`. On the disk it is three times as much: in buildah's storage, as blobs
(containerd's and ours are the same files) and in containerd's snapshots."""

SPARE_WHEN_FULL = 10**9
"""The same on a disk with less than ROOM."""

ROOM = 25 * 10**9
"""Bytes that a disk should have free: new dependencies take some 18 GB before the old ones are forgotten."""

LARGE = 10**9
"""Bytes of a layer that is worth looking for in every intermediate image; small ones go when those are many."""


def tag_of(entry: dict[str, Any]) -> str:
    """The name of an entry in an OCI layout's index."""
    return str(entry.get("annotations", {}).get("org.opencontainers.image.ref.name", ""))


def layers_of(oci: Path, manifest: dict[str, Any]) -> dict[str, int]:
    """The digests of an image's layers, and the bytes of each."""
    layers = json.loads(load.blob(oci, manifest["digest"]).read_text())["layers"]
    return {str(layer["digest"]): int(layer["size"]) for layer in layers}


def spare(free: int) -> int:
    """Bytes of layers that may be kept beside the newest image's where so many are free."""
    return SPARE if free >= ROOM else SPARE_WHEN_FULL


def newest(images: list[tuple[str, dict[str, int]]], spare: int) -> set[str]:
    """Which tags to keep of (tag, bytes of each layer), the newest being last; that one always."""
    kept: set[str] = set()
    layers: dict[str, int] = {}
    most = spare + sum(images[-1][1].values()) if images else 0
    for tag, its in reversed(images):
        layers |= its
        if len(kept) == KEEP or sum(layers.values()) > most:
            break
        kept.add(tag)
    return kept


def old_images(oci: Path, repository: str, cluster: Layout) -> None:
    """Remove what `newest` does not keep of a repository from buildah, the OCI layout and containerd."""
    if not (oci / "index.json").exists():
        return
    index = json.loads((oci / "index.json").read_text())
    prefix = buildah.tag_in_layout(f"{repository}:")
    layers = {tag_of(entry): layers_of(oci, entry) for entry in index["manifests"] if tag_of(entry).startswith(prefix)}
    keep = newest(list(layers.items()), spare(shutil.disk_usage(oci).free))

    def is_old(reference: str) -> bool:
        return reference.startswith(f"{repository}:") and buildah.tag_in_layout(reference) not in keep

    buildah.remove({name for name in buildah.references() if is_old(name)})
    used = {layer for tag, its in layers.items() if tag in keep for layer in its}
    large = {layer for its in layers.values() for layer, size in its.items() if size >= LARGE}
    buildah.remove_intermediate(large - used)
    containers.remove_images(cluster, {name for name in containers.images(cluster) if is_old(name)})
    kept = [entry for entry in index["manifests"] if tag_of(entry) not in layers or tag_of(entry) in keep]
    (oci / "index.json").write_text(json.dumps({**index, "manifests": kept}))
    needed = {digest for entry in kept for digest in load.digests_of(oci, entry)}
    for file in (oci / "blobs" / "sha256").iterdir():
        if f"sha256:{file.name}" not in needed:
            file.unlink()
