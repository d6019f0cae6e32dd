"""A real Prometheus on this machine: scrapes pods by the chart's PodMonitors, evaluates the chart's rules.

What the Prometheus operator would make of a PodMonitor is done here: the same selectors, ports and labels as a scrape
configuration. Debian's build cannot ask Kubernetes for pods, so that they come from a file, with the labels that its
discovery would give them. The machine reaches the addresses of the local cluster's pods.
"""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.kube import Object
from tools import packages
from tools.ports import free_port

NAMESPACE, POD = "__meta_kubernetes_namespace", "__meta_kubernetes_pod"
SECONDS = 30
"""That it gets to start."""


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str, targets: Path) -> None:
        self.url = url
        self._targets = targets

    def discover(self, pods: list[Object]) -> None:
        """Say which pods there are now."""
        text = json.dumps([target for pod in pods for target in _targets_of(pod)])
        fresh = self._targets.with_suffix(".partial")
        fresh.write_text(text)
        fresh.rename(self._targets)

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of the answer; AssertionError where an expression does not parse."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[Object]:
        """The series of an instant vector."""
        return list(self.get("query", query=expression)["result"])

    def rules(self) -> dict[str, Object]:
        """Alert -> what became of its last evaluation."""
        return {rule["name"]: rule for group in self.get("rules")["groups"] for rule in group["rules"]}

    def targets(self) -> dict[str, str]:
        """What it scrapes or fails to, for a message."""
        return {target["scrapeUrl"]: target["lastError"] for target in self.get("targets")["activeTargets"]}


def _targets_of(pod: Object) -> list[Object]:
    """As Prometheus' discovery of role `pod` has them: one for each port of a container."""
    metadata, status = pod["metadata"], pod["status"]
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
    labels = {f"{POD}_label_{_plain(name)}": value for name, value in metadata.get("labels", {}).items()}
    labels |= {NAMESPACE: metadata["namespace"], f"{POD}_name": metadata["name"], f"{POD}_phase": status["phase"]}
    return [
        {
            "targets": [f"{status['podIP']}:{port['containerPort']}"],
            "labels": {**labels, f"{POD}_container_port_name": port.get("name", "")},
        }
        for port in ports
        if status.get("podIP")
    ]


def scrape_configs(monitor: Object, targets: Path) -> list[Object]:
    """One for each endpoint of a PodMonitor."""
    spec, metadata = monitor["spec"], monitor["metadata"]
    where = spec.get("namespaceSelector") or {"matchNames": [metadata["namespace"]]}
    names = ".*" if where.get("any") else "|".join(where["matchNames"])
    return [
        {
            "job_name": f"{metadata['namespace']}/{metadata['name']}/{number}",
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "metrics_path": endpoint["path"],
            "honor_labels": endpoint.get("honorLabels", False),
            "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
            "relabel_configs": [
                {"action": "keep", "source_labels": [NAMESPACE], "regex": names},
                *_kept(spec, endpoint["port"]),
                *_labelled(spec),
            ],
        }
        for number, endpoint in enumerate(spec["podMetricsEndpoints"])
    ]


def _kept(spec: Object, port: str) -> list[Object]:
    selector = spec["selector"]
    wanted = {name: [value] for name, value in selector.get("matchLabels", {}).items()}
    wanted |= {each["key"]: each["values"] for each in selector.get("matchExpressions", ())}
    conditions = {f"{POD}_label_{_plain(name)}": "|".join(values) for name, values in wanted.items()}
    conditions |= {f"{POD}_container_port_name": port, f"{POD}_phase": "Running"}
    return [{"action": "keep", "source_labels": [label], "regex": regex} for label, regex in conditions.items()]


def _labelled(spec: Object) -> list[Object]:
    targets = {"namespace": NAMESPACE, "pod": f"{POD}_name"}
    targets |= {_plain(name): f"{POD}_label_{_plain(name)}" for name in spec.get("podTargetLabels", ())}
    return [{"source_labels": [source], "target_label": target} for target, source in targets.items()]


def _plain(label: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in label)


@contextmanager
def prometheus(manifests: list[Object], folder: Path) -> Iterator[Prometheus]:
    """Run one with the PodMonitors and PrometheusRules among the manifests."""
    rules = [each["spec"] for each in manifests if each["kind"] == "PrometheusRule"]
    monitors = [each for each in manifests if each["kind"] == "PodMonitor"]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [group for one in rules for group in one["groups"]]}))
    targets = folder / "targets.json"
    configuration = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [config for monitor in monitors for config in scrape_configs(monitor, targets)],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    argv = [
        str(packages.unpacked_folder("prometheus") / "usr" / "bin" / "prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    try:
        found = Prometheus(f"http://127.0.0.1:{port}", targets)
        _wait_until_ready(found, process, folder / "prometheus.log")
        yield found
    finally:
        process.terminate()
        process.wait(SECONDS)


def _wait_until_ready(found: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not _is_ready(found):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _is_ready(found: Prometheus) -> bool:
    try:
        urllib.request.urlopen(f"{found.url}/-/ready", timeout=2).close()
    except OSError:
        return False
    return True
