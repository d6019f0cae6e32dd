"""What the cluster asks of its containerd: which images it has, loading more, and forgetting containers."""

from __future__ import annotations

import subprocess

from tools.cluster import tiny_images
from tools.cluster.settings import BUSYBOX_IMAGE, PAUSE_IMAGE, Layout
from tools.console import StepError, output_of


def ctr(layout: Layout, *arguments: str) -> list[str]:
    """The command line for Kubernetes' namespace of this cluster's containerd."""
    return ["ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io", *arguments]


def images(layout: Layout) -> dict[str, str]:
    """The images that pods can use: reference -> digest of the manifest."""
    lines = output_of(ctr(layout, "images", "list")).splitlines()[1:]
    return {fields[0]: fields[2] for fields in map(str.split, lines)}


def remove_images(layout: Layout, references: set[str]) -> None:
    """Remove images, with the names by digest that the kubelet's interface gave them, which keep their layers alive."""
    present = images(layout)
    named = {name for name in present if not name.startswith("sha256:")} - references
    needed = {present[name] for name in named}
    unneeded = {name for name, digest in present.items() if name not in named and digest not in needed}
    if unneeded | references:
        subprocess.run(ctr(layout, "images", "remove", *(unneeded | references)), capture_output=True, check=False)


def blobs(layout: Layout) -> set[str]:
    """Digests of the layers, configurations and manifests that containerd has."""
    return set(output_of(ctr(layout, "content", "list", "--quiet")).split())


def load_archive(layout: Layout, content: bytes) -> None:
    """Load a small image archive. Raises `StepError` with containerd's words."""
    argv = ctr(layout, "images", "import", "-")
    done = subprocess.run(argv, input=content, capture_output=True, check=False)
    if done.returncode != 0:
        raise StepError(f"loading an image into containerd: {done.stderr.decode(errors='replace').strip()}")


def load_tiny_images(layout: Layout) -> None:
    """The pause and busybox images, unless they are there."""
    if {PAUSE_IMAGE, BUSYBOX_IMAGE} <= images(layout).keys():
        return
    layer = tiny_images.archive(tiny_images.busybox_files())
    path = ["PATH=/bin"]
    pause = {"Cmd": ["sleep", "2147483647"], "Env": path}
    load_archive(
        layout, tiny_images.image_archive(layer, {PAUSE_IMAGE: pause, BUSYBOX_IMAGE: {"Cmd": ["sh"], "Env": path}})
    )


def forget_containers(layout: Layout) -> None:
    """Remove every container's record and snapshot; their processes must have ended. As far as containerd can."""
    for kind in ("tasks", "containers"):
        listed = subprocess.run(ctr(layout, kind, "list", "--quiet"), capture_output=True, text=True, check=False)
        if names := listed.stdout.split():
            subprocess.run(ctr(layout, kind, "remove", *names), capture_output=True, check=False)
