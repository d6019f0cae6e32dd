"""`make cluster-down`: nothing of the cluster is left but the caches of programs and images."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.cluster import containers, network, processes
from tools.cluster.settings import POD_NETWORK, Layout, layout
from tools.console import StepError, say
from tools.images import buildah
from tools.paths import KUBECONFIG, exclusive

CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
SHIM_SOCKETS = Path("/run/containerd/s")
"""Folders that the CNI library, the kubelet and containerd's shims use and that cannot be moved."""

STOPPING_ORDER = (
    ("kubelet",),
    ("local-path-provisioner", "coredns", "kube-proxy", "kube-scheduler", "kube-controller-manager"),
    ("kube-apiserver",),
    ("etcd",),
)
"""The kubelet first, so that nothing starts containers any more; containerd last, after its containers."""


def down() -> None:
    """Stop and remove the cluster."""
    where = layout()
    if os.geteuid() != 0:
        raise StepError("removing the local cluster needs root")
    processes.refuse_foreign(where)
    with exclusive("images"), exclusive("cluster"):
        remove_everything(where, with_images=False)
        remove_build_mounts()
    KUBECONFIG.unlink(missing_ok=True)
    say("the cluster is gone; programs and images stay cached")


def remove_everything(layout: Layout, *, with_images: bool) -> None:
    """Stop the cluster and delete what it knew; the images too when containerd cannot read them."""
    stop_everything(layout)
    network.restore_settings(layout)
    shutil.rmtree(layout.state, ignore_errors=True)
    for file in leftovers():
        file.unlink(missing_ok=True)
    for folder in (CNI_RESULTS, CNI_RESULTS.parent, CONTAINER_LOGS, SHIM_SOCKETS, SHIM_SOCKETS.parent):
        remove_if_empty(folder)
    if with_images:
        shutil.rmtree(layout.images, ignore_errors=True)


def stop_everything(layout: Layout) -> None:
    """End all processes and containers, and undo mounts, bridges, firewall rules and control groups."""
    for names in STOPPING_ORDER:
        say(f"  stopping {', '.join(names)}")
        processes.stop(found.pid for found in processes.running(layout) if found.component in names)
    processes.kill(processes.in_containers(layout))
    if processes.is_socket_alive(layout.containerd_socket):
        containers.forget_containers(layout)
    say("  stopping containerd")
    processes.stop(found.pid for found in processes.running(layout))
    processes.kill(processes.in_containers(layout))
    unmount_below(layout.state, layout.images)
    network.down()
    remove_control_groups()


def mount_points() -> list[Path]:
    """Where something is mounted, in the order it was."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # The kernel writes a space in a path as \040.
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]


def unmount_below(*folders: Path) -> None:
    """Unmount everything below the folders, the deepest and latest first, however often it is mounted."""
    for point in reversed(mount_points()):
        if any(point.is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)


def remove_build_mounts() -> None:
    """Undo what an interrupted image build left mounted."""
    storage, run = buildah.storage()
    if storage.exists():
        subprocess.run(buildah.command("rm", "--all"), capture_output=True, check=False)
        unmount_below(storage, run)
        shutil.rmtree(run, ignore_errors=True)


def leftovers() -> Iterator[Path]:
    """Files of ours in shared folders: network results, links to logs that are gone, sockets nobody listens on."""
    yield from CNI_RESULTS.glob(f"{POD_NETWORK}-*")
    yield from (file for file in CONTAINER_LOGS.glob("*") if file.is_symlink() and not file.exists())
    yield from (file for file in SHIM_SOCKETS.glob("*") if not processes.is_socket_alive(file))


def remove_if_empty(folder: Path) -> None:
    """Delete a folder unless something is in it, which then is somebody else's."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_control_groups() -> None:
    """Delete the empty control groups of pods; one that holds a process stays, the kernel refuses."""
    groups = Path("/sys/fs/cgroup")
    for top in (*groups.glob("kubepods"), *groups.glob("*/kubepods")):
        for folder, _, _ in os.walk(top, topdown=False):
            remove_if_empty(Path(folder))
