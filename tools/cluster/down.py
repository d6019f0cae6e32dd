"""`make cluster-down`: nothing of the cluster is left but the caches of programs and images."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.cluster import containers, network, processes
from tools.cluster.settings import POD_NETWORK, Layout, layout
from tools.console import StepFailed, say
from tools.paths import KUBECONFIG, exclusive

CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
"""Folders that the CNI library and the kubelet use and that cannot be moved."""

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
        raise StepFailed("removing the local cluster needs root")
    with exclusive("cluster"):
        remove_everything(where, with_images=False)
    KUBECONFIG.unlink(missing_ok=True)
    say("the cluster is gone; programs and images stay cached")


def remove_everything(layout: Layout, *, with_images: bool) -> None:
    """Stop the cluster and delete what it knew; the images too when containerd cannot read them."""
    stop_everything(layout)
    network.restore_settings(layout)
    shutil.rmtree(layout.state, ignore_errors=True)
    for file in (*CNI_RESULTS.glob(f"{POD_NETWORK}-*"), *dangling_links(CONTAINER_LOGS)):
        file.unlink(missing_ok=True)
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


def dangling_links(folder: Path) -> Iterator[Path]:
    """Symbolic links to logs that are gone."""
    return (file for file in folder.glob("*") if file.is_symlink() and not file.exists())


def remove_control_groups() -> None:
    """Delete the empty control groups of pods; one that holds a process stays, the kernel refuses."""
    groups = Path("/sys/fs/cgroup")
    for top in (*groups.glob("kubepods"), *groups.glob("*/kubepods")):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue
