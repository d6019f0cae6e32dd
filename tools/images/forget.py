"""Removing images that newer builds have replaced, from all three places where they take gigabytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.cluster import containers
from tools.cluster.settings import Layout
from tools.images import buildah, load

KEEP = 20
"""Images kept of each repository: they share all but a few megabytes, and pods or other clones may still use them."""

KEEP_HEAVY = 2
"""How many different dependency layers those may have: each takes gigabytes, but changes only with `uv.lock`."""


def tag_of(entry: dict[str, Any]) -> str:
    """The name of an entry in an OCI layout's index."""
    return str(entry.get("annotations", {}).get("org.opencontainers.image.ref.name", ""))


def heaviest_layer(oci: Path, manifest: dict[str, Any]) -> str:
    """The digest of an image's largest layer."""
    layers = json.loads(load.blob(oci, manifest["digest"]).read_text())["layers"]
    return str(max(layers, key=lambda layer: int(layer["size"]))["digest"])


def newest(images: list[tuple[str, str]]) -> set[str]:
    """Which tags to keep of (tag, heaviest layer), the newest being last."""
    kept: set[str] = set()
    heavy: set[str] = set()
    for tag, layer in reversed(images):
        heavy.add(layer)
        if len(kept) == KEEP or len(heavy) > KEEP_HEAVY:
            break
        kept.add(tag)
    return kept


def old_images(oci: Path, repository: str, cluster: Layout) -> None:
    """Remove what `newest` does not keep of a repository from buildah, the OCI layout and containerd."""
    index = json.loads((oci / "index.json").read_text())
    prefix = buildah.tag_in_layout(f"{repository}:")
    ours = [entry for entry in index["manifests"] if tag_of(entry).startswith(prefix)]
    keep = newest([(tag_of(entry), heaviest_layer(oci, entry)) for entry in ours])

    def is_old(reference: str) -> bool:
        return reference.startswith(f"{repository}:") and buildah.tag_in_layout(reference) not in keep

    buildah.remove({name for name in buildah.references() if is_old(name)})
    containers.remove_images(cluster, {name for name in containers.images(cluster) if is_old(name)})
    kept = [entry for entry in index["manifests"] if entry not in ours or tag_of(entry) in keep]
    (oci / "index.json").write_text(json.dumps({**index, "manifests": kept}))
    needed = {digest for entry in kept for digest in load.digests_of(oci, entry)}
    for file in (oci / "blobs" / "sha256").iterdir():
        if f"sha256:{file.name}" not in needed:
            file.unlink()
