"""`python3 -m tools.images`: build what changed, load it into the local cluster, write `.local/images.json`."""

from __future__ import annotations

import json

from tools import packages, paths
from tools.cluster import containers, processes
from tools.cluster.settings import layout as cluster_layout
from tools.console import StepFailed, exit_on_failure, say
from tools.images import base, buildah, inputs, load

KEEP = 3
"""Images kept of each repository: another clone on this machine may still run the one before."""


def ensure(image: inputs.Image, base_reference: str) -> str:
    """Build and load one image unless containerd has it; returns its reference."""
    cluster = cluster_layout()
    oci = paths.cache() / "oci"
    reference = image.reference(paths.REPOSITORY, base_reference)
    if reference in containers.images(cluster):
        say(f"  {reference}: unchanged")
        return reference
    name = base.ensure()
    if not buildah.exists(reference):
        options = [f"--build-arg=BASE={name}", *buildah.access_to_indexes()]
        buildah.build(reference, paths.REPOSITORY / image.dockerfile, paths.REPOSITORY, options)
    buildah.export(reference, oci)
    load.load(oci, reference, cluster)
    kept = buildah.keep_newest(image.repository, KEEP)
    load.forget_old(oci, kept, cluster, image.repository)
    return reference


def main() -> None:
    """Make both images usable for pods of the local cluster."""
    if not processes.is_socket_alive(cluster_layout().containerd_socket):
        raise StepFailed("the local cluster does not run: `make cluster` first")
    packages.ensure(packages.IMAGES)
    with paths.exclusive("images"):
        references = {image.name: ensure(image, base.reference()) for image in inputs.ALL}
    paths.LOCAL.mkdir(exist_ok=True)
    paths.IMAGES_FILE.write_text(json.dumps(references, indent=2) + "\n")


if __name__ == "__main__":
    exit_on_failure(main)
