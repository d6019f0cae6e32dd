"""What the cluster asks of its containerd: which images it has, loading more, and forgetting containers."""

from __future__ import annotations

import subprocess

from tools.cluster import tiny_images
from tools.cluster.settings import BUSYBOX_IMAGE, PAUSE_IMAGE, Layout
from tools.console import StepFailed, output_of


def ctr(layout: Layout, *arguments: str) -> list[str]:
    """The command line for Kubernetes' namespace of this cluster's containerd."""
    return ["ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io", *arguments]


def images(layout: Layout) -> set[str]:
    """References of the images that pods can use."""
    return set(output_of(ctr(layout, "images", "list", "--quiet")).split())


def blobs(layout: Layout) -> set[str]:
    """Digests of the layers, configurations and manifests that containerd has."""
    return set(output_of(ctr(layout, "content", "list", "--quiet")).split())


def load_archive(layout: Layout, content: bytes) -> None:
    """Load a small image archive. Raises `StepFailed` with containerd's words."""
    argv = ctr(layout, "images", "import", "-")
    done = subprocess.run(argv, input=content, capture_output=True, check=False)
    if done.returncode != 0:
        raise StepFailed(f"loading an image into containerd: {done.stderr.decode(errors='replace').strip()}")


def load_tiny_images(layout: Layout) -> None:
    """The pause and busybox images, unless they are there."""
    if {PAUSE_IMAGE, BUSYBOX_IMAGE} <= images(layout):
        return
    layer = tiny_images.archive(tiny_images.busybox_files())
    load_archive(layout, tiny_images.image_archive(layer, {PAUSE_IMAGE: ["sleep", "2147483647"], BUSYBOX_IMAGE: ["sh"]}))


def forget_containers(layout: Layout) -> None:
    """Remove every container's record and snapshot; their processes must have ended."""
    for kind in ("tasks", "containers"):
        names = output_of(ctr(layout, kind, "list", "--quiet")).split()
        if names:
            subprocess.run(ctr(layout, kind, "remove", *names), capture_output=True, check=False)

