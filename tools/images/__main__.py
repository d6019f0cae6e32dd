"""`python3 -m tools.images`: build what changed, load it into the local cluster, write `.local/images.json`."""

from __future__ import annotations

import json
import os

from tools import context, packages, paths
from tools.cluster import containers, processes
from tools.cluster.settings import layout as cluster_layout
from tools.console import StepError, exit_on_failure, say
from tools.images import base, buildah, forget, inputs, load


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
        # Also before, so that both fit the disk.
        forget.old_images(oci, image.repository, cluster)
        options = [f"--build-arg=BASE={name}", *buildah.access_to_indexes()]
        buildah.build(reference, paths.REPOSITORY / image.dockerfile, paths.REPOSITORY, options)
    buildah.export(reference, oci)
    load.load(oci, reference, cluster)
    forget.old_images(oci, image.repository, cluster)
    return reference


def pulled() -> dict[str, str]:
    """With CLUSTER=current, the references that its nodes can pull: nothing can be loaded into somebody's cluster."""
    names = {image.name: f"{image.name.upper()}_IMAGE" for image in inputs.ALL}
    absent = [name for name in names.values() if not os.environ.get(name)]
    if absent:
        raise StepError(
            f"CLUSTER=current: set {' and '.join(absent)} to images that the cluster can pull; "
            "build them with `docker build -f operator/Dockerfile .` and `docker build -f trainer-image/Dockerfile .`"
        )
    return {image: os.environ[name] for image, name in names.items()}


def built() -> dict[str, str]:
    """Both images, usable for pods of the local cluster."""
    if not processes.is_socket_alive(cluster_layout().containerd_socket):
        raise StepError("the local cluster does not run: `make cluster` first")
    packages.ensure(packages.IMAGES)
    with paths.exclusive("images"):
        return {image.name: ensure(image, base.reference()) for image in inputs.ALL}


def main() -> None:
    """Write down which images an installation is to use, after making them."""
    references = pulled() if context.is_current() else built()
    paths.LOCAL.mkdir(exist_ok=True)
    paths.IMAGES_FILE.write_text(json.dumps(references, indent=2) + "\n")


if __name__ == "__main__":
    exit_on_failure(main)
