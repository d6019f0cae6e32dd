"""Starting, finding, judging and ending the cluster's processes. The process table is the only record of them."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.components import Component
from tools.cluster.settings import Layout
from tools.console import StepError, failure, wait_until

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FOREIGN_PROGRAMS = ("kubelet", "kube-proxy", "k3s", "k0s", "microk8s")
READY_SECONDS = 60.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Process:
    """A running process that one of our components is, or that it started (containerd's shims)."""

    pid: int
    program: str
    component: str
    configuration: str


def environment(layout: Layout, component: Component) -> dict[str, str]:
    """All that a component gets: where programs are, and the marks by which it is found again. No proxies."""
    return {
        "PATH": PATH,
        "HOME": str(layout.state),
        "FINETUNE_CLUSTER": str(layout.state),
        "FINETUNE_COMPONENT": component.name,
        "FINETUNE_CONFIGURATION": component.configuration,
    }


def parse_environment(data: bytes) -> dict[str, str]:
    """/proc/PID/environ as a dictionary."""
    pairs = (entry.partition("=") for entry in data.decode(errors="replace").split("\0"))
    return {name: value for name, separator, value in pairs if separator}


def process_ids() -> Iterator[int]:
    """Every process of this machine but the asking one."""
    return (
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()
    )


def running(layout: Layout) -> list[Process]:
    """Every process that carries the mark of this cluster. One that ends while being read is left out."""
    found = []
    for pid in process_ids():
        try:
            marks = parse_environment(Path(f"/proc/{pid}/environ").read_bytes())
            if marks.get("FINETUNE_CLUSTER") != str(layout.state):
                continue
            program = str(Path(f"/proc/{pid}/exe").readlink())
        except OSError:
            continue
        name, configuration = marks.get("FINETUNE_COMPONENT", ""), marks.get("FINETUNE_CONFIGURATION", "")
        found.append(Process(pid, program, name, configuration))
    return found


def refuse_foreign(layout: Layout) -> None:
    """Leave a machine alone on which another Kubernetes runs: addresses, ports and firewall chains would be shared.

    That may be one of ours from another cache folder. Raises `StepError`.
    """
    ours = {process.pid for process in running(layout)}
    for pid in process_ids():
        try:
            program = Path(f"/proc/{pid}/exe").readlink().name
        except OSError:
            continue
        if program in FOREIGN_PROGRAMS and pid not in ours:
            raise StepError(
                f"another Kubernetes runs on this machine ({program}, process {pid}); CLUSTER=current uses it"
            )


def of_component(component: Component, processes: Iterable[Process]) -> list[Process]:
    """The component's own processes among those found, of any configuration; not what it started in its turn."""
    program = Path(component.argv[0]).name
    return [
        process
        for process in processes
        if process.component == component.name and Path(process.program.removesuffix(" (deleted)")).name == program
    ]


def is_current(component: Component, processes: Iterable[Process]) -> bool:
    """Whether exactly one process runs the component, with the wanted configuration."""
    found = of_component(component, processes)
    return len(found) == 1 and found[0].configuration == component.configuration


def start(layout: Layout, component: Component) -> Callable[[], int | None]:
    """Start a component detached from this process; returns what asks for its exit status (None: it runs)."""
    for file, content in component.files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    log = layout.logs / f"{component.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    with log.open("w") as output:
        process = subprocess.Popen(
            component.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment(layout, component),
            start_new_session=True,
        )
    return process.poll


def is_ready(component: Component) -> bool:
    """Whether the component answers on its own health address."""
    if component.ready.startswith("unix:"):
        return is_socket_alive(Path(component.ready.removeprefix("unix:")))
    if not component.ready:
        return True
    # A health answer carries no secret and the address is this machine's own.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(component.ready, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def is_socket_alive(file: Path) -> bool:
    """Whether a process listens on a Unix socket; a socket file without one is only a leftover."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        return connection.connect_ex(str(file)) == 0


def wait_ready(layout: Layout, component: Component, exit_status: Callable[[], int | None]) -> None:
    """Wait until the component is ready. Raises `StepError` when it ends or takes too long."""
    log = layout.logs / f"{component.name}.log"

    def ended_or_ready() -> bool:
        return exit_status() is not None or is_ready(component)

    in_time = wait_until(ended_or_ready, READY_SECONDS, step=f"waiting for {component.name}")
    if exit_status() is not None:
        raise failure(component.name, f"ended with exit status {exit_status()} instead of becoming ready", log)
    if not in_time:
        raise failure(component.name, f"was not ready ({component.ready}) after {READY_SECONDS:.0f} s", log)


def stop(pids: Iterable[int], seconds: float = STOP_SECONDS) -> None:
    """End processes: politely, and by force after some seconds. Returns when none of them exists."""
    alive = [pid for pid in pids if send(pid, signal.SIGTERM)]
    if not wait_until(lambda: not any(map(exists, alive)), seconds, interval=0.05):
        kill(alive)


def kill(pids: Iterable[int]) -> None:
    """End processes by force and wait until the kernel has let go of them."""
    alive = [pid for pid in pids if send(pid, signal.SIGKILL)]
    wait_until(lambda: not any(map(exists, alive)), STOP_SECONDS, interval=0.02)


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False when the process is already gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def exists(pid: int) -> bool:
    """Whether the process exists and is no zombie (a zombie holds no port, mount or file)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def in_containers(layout: Layout) -> list[int]:
    """Processes whose root file system is one of this cluster's container snapshots, also when their shim is gone."""
    found = []
    for pid in process_ids():
        try:
            mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        except OSError:
            continue
        root = next((line for line in mounts.splitlines() if line.split()[4] == "/"), "")
        if f"upperdir={layout.images}/" in root:
            found.append(pid)
    return found
