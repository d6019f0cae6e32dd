"""Everything slow that needs no cluster, at once: compiling waits for processors, downloading for the network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tools import binaries, context, packages, venv
from tools.console import exit_on_failure
from tools.images import base


def build_programs() -> None:
    """The programs of the local cluster."""
    binaries.ensure(*binaries.FOR_CLUSTER)


def download() -> None:
    """The development environment, and the root file system that images are built on."""
    venv.main()
    if not context.is_current():
        base.archive()


def main() -> None:
    """Run all; the first failure is raised once the others have ended."""
    if not context.is_current():
        packages.ensure((*packages.CLUSTER, *packages.IMAGES))
    with ThreadPoolExecutor() as pool:
        for work in [pool.submit(build_programs), pool.submit(download)]:
            work.result()


if __name__ == "__main__":
    exit_on_failure(main)
