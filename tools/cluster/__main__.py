"""`python3 -m tools.cluster up|down|status`."""

from __future__ import annotations

import sys

from tools.cluster import down, processes, up
from tools.console import StepError, exit_on_failure, say
from tools.paths import KUBECONFIG


def status() -> None:
    """Print one line per component; fails when the cluster is not healthy."""
    cluster = up.wanted()
    found = processes.running(cluster.layout)
    for component in cluster.components:
        pids = [process.pid for process in processes.of_component(component, found)]
        if not pids:
            state = "not running"
        elif not processes.is_current(component, found):
            state = "runs with another configuration"
        else:
            state = "ready" if processes.is_ready(component) else "not ready"
        say(f"{component.name:25} {state:32} {' '.join(map(str, pids))}")
    if not up.is_healthy(cluster):
        raise StepError("the cluster is not healthy: `make cluster` repairs it")


def main() -> None:
    """Run the command that the first argument names."""
    match sys.argv[1:]:
        case ["up"]:
            up.up()
            say(f"cluster is up; export KUBECONFIG={KUBECONFIG}")
        case ["down"]:
            down.down()
        case ["status"]:
            status()
        case _:
            raise StepError("usage: python3 -m tools.cluster up|down|status")


if __name__ == "__main__":
    exit_on_failure(main)
