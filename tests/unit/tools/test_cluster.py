"""The local cluster's pure parts, and how its processes are told from others."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tools import context, install
from tools.cluster import configuration, network, objects, processes, tiny_images
from tools.cluster.components import Component, flags, stages
from tools.cluster.processes import Process
from tools.cluster.settings import Layout
from tools.console import StepError, run_logged, tail, wait_until

LAYOUT = Layout(state=Path("/cache/cluster"), images=Path("/cache/containerd"))
BINARIES = {name: Path("/cache/go") / name for name in ("kubernetes", "coredns", "local-path-provisioner")}
COMPONENTS = {component.name: component for stage in stages(LAYOUT, BINARIES) for component in stage}


def test_flags() -> None:
    assert flags(kube_api_qps=5, data_dir="/x") == ("--kube-api-qps=5", "--data-dir=/x")


def test_the_api_server_starts_after_etcd_and_before_its_clients() -> None:
    names = [[component.name for component in stage] for stage in stages(LAYOUT, BINARIES)]
    assert names[0] == ["etcd", "containerd"]
    assert names[1] == ["kube-apiserver"]
    assert "kubelet" in names[2]


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=COMPONENTS)
def test_a_component_keeps_its_files_below_the_cluster_folder(component: Component) -> None:
    assert all(file.is_relative_to(LAYOUT.state) for file, _ in component.files)


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=COMPONENTS)
def test_a_component_is_restarted_when_a_flag_or_a_file_changes(component: Component) -> None:
    with_flag = dataclasses.replace(component, argv=(*component.argv, "--v=4"))
    with_file = dataclasses.replace(component, files=(*component.files, (Path("/x"), "text")))
    assert len({component.configuration, with_flag.configuration, with_file.configuration}) == 3


def test_json_configurations_are_json() -> None:
    for text in (configuration.kubelet(LAYOUT), configuration.kube_proxy(LAYOUT), configuration.local_path(LAYOUT)):
        assert json.loads(text)


KUBELET = COMPONENTS["kubelet"]
CURRENT = Process(7, KUBELET.argv[0], "kubelet", KUBELET.configuration)


@pytest.mark.parametrize(
    ("found", "current"),
    [
        pytest.param([CURRENT], True, id="runs as wanted"),
        pytest.param([], False, id="does not run"),
        pytest.param([dataclasses.replace(CURRENT, configuration="old")], False, id="runs with an older configuration"),
        pytest.param([CURRENT, dataclasses.replace(CURRENT, pid=8)], False, id="runs twice"),
        pytest.param(
            [dataclasses.replace(CURRENT, program="/usr/sbin/iptables")], False, id="only what it started runs"
        ),
        pytest.param([dataclasses.replace(CURRENT, component="kube-proxy")], False, id="another component runs"),
    ],
)
def test_is_current(found: list[Process], current: bool) -> None:
    assert processes.is_current(KUBELET, found) is current


def test_a_program_that_was_replaced_on_disk_is_still_found() -> None:
    process = dataclasses.replace(CURRENT, program=f"{KUBELET.argv[0]} (deleted)")
    assert processes.of_component(KUBELET, [process]) == [process]


def test_processes_are_found_by_their_marks_and_by_nothing_else(tmp_path: Path) -> None:
    layout = Layout(state=tmp_path / "cluster", images=tmp_path / "containerd")
    marked = Component("sleeper", ("/bin/sleep", "60"))
    with subprocess.Popen(marked.argv, env=processes.environment(layout, marked)) as process:
        with subprocess.Popen(marked.argv) as stranger:
            # The kernel tells a program's environment some moments after Popen has returned.
            wait_until(lambda: bool(processes.running(layout)), 10, interval=0.01)
            found = processes.running(layout)
            stranger.kill()
        assert [(entry.pid, entry.component) for entry in found] == [(process.pid, "sleeper")]
        assert processes.is_current(marked, found)
        processes.stop([process.pid])
        assert not processes.exists(process.pid)
    assert processes.running(layout) == []


def test_another_kubernetes_on_the_machine_is_left_alone(tmp_path: Path) -> None:
    kubelet = tmp_path / "kubelet"
    shutil.copy("/bin/sleep", kubelet)
    ours = Layout(state=tmp_path / "cluster", images=tmp_path / "containerd")
    component = Component("kubelet", (str(kubelet), "60"))
    with subprocess.Popen(component.argv, env=processes.environment(ours, component)) as process:
        theirs = Layout(state=tmp_path / "other", images=tmp_path / "other-images")
        with pytest.raises(StepError, match="another Kubernetes"):
            processes.refuse_foreign(theirs)
        assert process.pid in {found.pid for found in processes.running(ours)}
        process.kill()


def test_a_process_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with subprocess.Popen(["/bin/sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 1; done"]) as process:
        assert wait_until(ready.exists, 10)
        processes.stop([process.pid], seconds=0.2)
        assert not processes.exists(process.pid)


def test_a_process_that_never_was_is_stopped_already() -> None:
    beyond_any = 2**22 + 1
    processes.stop([beyond_any])
    assert not processes.exists(beyond_any)
    assert processes.exists(os.getpid())


def test_environment_of_a_process() -> None:
    assert processes.parse_environment(b"A=1\0B=x=y\0broken\0") == {"A": "1", "B": "x=y"}


def test_a_socket_file_without_a_listener_is_dead(tmp_path: Path) -> None:
    assert not processes.is_socket_alive(tmp_path / "missing")
    (tmp_path / "file").touch()
    assert not processes.is_socket_alive(tmp_path / "file")


SAVED = """\
# Generated by iptables-save
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:CNI-0123456789abcdef - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A POSTROUTING -s 10.244.0.4/32 -m comment --comment "name: \\"finetune\\" id: \\"x\\"" -j CNI-0123456789abcdef
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp -j ACCEPT
COMMIT
"""


MASQUERADE = r'POSTROUTING -s 10.244.0.4/32 -m comment --comment "name: \"finetune\" id: \"x\"" -j CNI-0123456789abcdef'


def test_only_our_firewall_rules_are_removed() -> None:
    assert MASQUERADE in SAVED
    assert network.removal_script(SAVED).splitlines() == [
        "*nat",
        ":KUBE-SERVICES - [0:0]",
        ":CNI-0123456789abcdef - [0:0]",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        f"-D {MASQUERADE}",
        "-X KUBE-SERVICES",
        "-X CNI-0123456789abcdef",
        "COMMIT",
    ]


def test_a_firewall_without_our_rules_is_left_alone() -> None:
    assert network.removal_script("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n") == ""
    assert network.removal_script("") == ""


def make_node(**status: object) -> dict[str, object]:
    gpus = {"nvidia.com/gpu": "8"}
    ready = [{"type": "Ready", "status": "True"}]
    return {"spec": {}, "status": {"conditions": ready, "capacity": gpus, "allocatable": gpus, **status}}


def test_a_node() -> None:
    assert objects.is_ready(make_node())
    assert objects.has_gpus(make_node())
    assert not objects.has_gpus(make_node(allocatable={"nvidia.com/gpu": "0"}))
    assert not objects.is_ready(make_node(conditions=[{"type": "Ready", "status": "Unknown"}]))
    assert not objects.is_ready({**make_node(), "spec": {"taints": [{"effect": "NoSchedule"}]}})
    assert not objects.is_ready({})


def test_a_tiny_image_is_consistent() -> None:
    layer = tiny_images.archive([tiny_images.entry("bin/program", b"content", mode=0o755)])
    content = tiny_images.image_archive(layer, {"localhost/a:1": {"Cmd": ["a"]}, "localhost/b:1": {"Cmd": ["b"]}})
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}
    assert all(name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}" for name, data in blobs.items())
    manifests = json.loads(files["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in manifests] == [
        "localhost/a:1",
        "localhost/b:1",
    ]
    assert all(entry["digest"].replace("sha256:", "blobs/sha256/") in blobs for entry in manifests)


def test_the_chart_gets_both_images() -> None:
    values = install.image_values({"operator": "localhost/o:dev-1", "trainer": "registry:5000/t:2"})
    assert "--set=image.repository=localhost/o" in values
    assert "--set=image.tag=dev-1" in values
    assert "--set=trainerImage.repository=registry:5000/t" in values
    assert "--set=trainerImage.tag=2" in values


def test_somebody_elses_cluster_needs_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    monkeypatch.delenv("YES", raising=False)
    with pytest.raises(StepError, match="YES=1"):
        context.confirm("production", "https://example.com")
    monkeypatch.setenv("YES", "1")
    context.confirm("production", "https://example.com")


def test_a_failed_step_says_which_why_and_where(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    with pytest.raises(StepError) as error:
        run_logged("compiling", ["/bin/sh", "-c", "echo no space left; exit 3"], log)
    assert str(error.value).startswith("compiling: ")
    assert "exit status 3" in str(error.value)
    assert "no space left" in str(error.value)
    assert str(log) in str(error.value)


def test_a_tail_is_short(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(map(str, range(100))))
    assert tail(log, 2) == "    98\n    99"
    assert tail(tmp_path / "missing") == ""
