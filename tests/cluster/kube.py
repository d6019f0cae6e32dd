"""kubectl for tests: JSON in, JSON out, and waiting on a condition with a deadline."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".local" / "bin"
KUBECONFIG = ROOT / ".local" / "kubeconfig"
POLL_SECONDS = 0.3

Value = TypeVar("Value")
Object = dict[str, Any]


class Kube:
    """One namespace of the local cluster."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(KUBECONFIG), "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def apply(self, *objects: Object | str, check: bool = True) -> str:
        text = "\n---\n".join(item if isinstance(item, str) else yaml.safe_dump(item) for item in objects)
        done = self.kubectl("apply", "-f", "-", stdin=text, check=check)
        return done.stdout + done.stderr

    def merge(self, kind: str, name: str, patch: Object) -> None:
        """Change an object by a merge patch, as `kubectl edit` does."""
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch))

    def get(self, kind: str, name: str) -> Object | None:
        done = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(done.stdout) if done.stdout else None

    def find(self, kind: str, selector: str = "") -> list[Object]:
        done = self.kubectl("get", kind, "-l", selector, "-o", "json")
        return list(json.loads(done.stdout)["items"])

    def find_everywhere(self, kind: str) -> list[Object]:
        """Of all namespaces."""
        return list(json.loads(self.kubectl("get", kind, "-A", "-o", "json").stdout)["items"])

    def status(self, kind: str, name: str) -> Object:
        return (self.get(kind, name) or {}).get("status") or {}

    def condition(self, kind: str, name: str, type_: str) -> Object:
        found = [c for c in self.status(kind, name).get("conditions", ()) if c["type"] == type_]
        return found[0] if found else {}

    def wait(self, what: str, look: Callable[[], Value], seconds: float = 90) -> Value:
        """Look until the answer is true; the failure tells what was there instead."""
        deadline = time.monotonic() + seconds
        while not (value := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self.picture()}")
            time.sleep(POLL_SECONDS)
        return value

    def wait_ready(self, kind: str, name: str, seconds: float = 180) -> Object:
        """Wait until the resource is Ready; one that is Stalled fails at once."""

        def look() -> Object | None:
            if self.condition(kind, name, "Stalled").get("status") == "True":
                raise AssertionError(
                    f"{kind}/{name} is stalled: {self.condition(kind, name, 'Stalled')}\n{self.picture()}"
                )
            ready = self.condition(kind, name, "Ready").get("status") == "True"
            return self.status(kind, name) if ready else None

        return self.wait(f"{kind}/{name} Ready", look, seconds)

    def picture(self) -> str:
        """What a person would look at first."""
        lists = self.kubectl("get", "datasets,finetunejobs,modeldeployments,jobs,pods,pvc", "-o", "wide", check=False)
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False).stdout.splitlines()[-15:]
        return "\n".join([lists.stdout, lists.stderr, *events, *self._logs_of_failed_pods()])

    def _logs_of_failed_pods(self) -> list[str]:
        failed = [pod["metadata"]["name"] for pod in self.find("pods") if pod["status"].get("phase") == "Failed"]
        return [f"--- {name}\n{self.kubectl('logs', name, '--tail=25', check=False).stdout}" for name in failed]
