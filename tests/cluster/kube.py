"""The cluster as tests see it: kubectl for what people do, the API itself for what is asked again and again."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import config

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".local" / "bin"
KUBECONFIG = ROOT / ".local" / "kubeconfig"
POLL_SECONDS = 0.3
SLOWNESS = 2
"""Limits are written for a machine of one's own; tests run side by side, on slower ones, too."""
PATIENCE_SECONDS = 900
"""What moves on is waited for this long at most."""

Value = TypeVar("Value")
Object = dict[str, Any]

_OURS, _CORE, _BATCH = "apis/finetune.dev/v1alpha1", "api/v1", "apis/batch/v1"
_PATHS = {
    **{f"{kind}{s}": f"/{_OURS}/namespaces/{{}}/{kind}s"
       for kind in ("dataset", "finetunejob", "modeldeployment", "batchinference") for s in ("", "s")},
    **{f"{kind}{s}": f"/{_CORE}/namespaces/{{}}/{kind}s" for kind in ("pod", "service") for s in ("", "s")},
    "pvc": f"/{_CORE}/namespaces/{{}}/persistentvolumeclaims",
    "jobs": f"/{_BATCH}/namespaces/{{}}/jobs",
}  # fmt: skip
"""Where the API server has what tests look at several times a second: a kubectl for each look would take a third of a
core."""


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
        if kind in _PATHS:
            return read(f"{_PATHS[kind].format(self.namespace)}/{name}")
        done = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(done.stdout) if done.stdout else None

    def find(self, kind: str, selector: str = "") -> list[Object]:
        if kind in _PATHS:
            return list((read(_PATHS[kind].format(self.namespace), labelSelector=selector) or {}).get("items", ()))
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

    def wait(
        self,
        what: str,
        look: Callable[[], Value | None],
        seconds: float = 90,
        movement: Callable[[], object] = lambda: None,
    ) -> Value:
        """Look until the answer is true; the failure tells what was there instead.

        The limit counts from the last time that `movement`, asked after each look, said something new.
        """
        seconds *= SLOWNESS
        began = moved = time.monotonic()
        last = None
        while not (value := look()):
            now = time.monotonic()
            if (seen := movement()) != last:
                last, moved = seen, now
            if now > min(moved + seconds, began + max(seconds, PATIENCE_SECONDS)):
                raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self.picture()}")
            time.sleep(POLL_SECONDS)
        return value

    def wait_ready(self, kind: str, name: str, seconds: float = 180) -> Object:
        """Wait until the resource is Ready, its last edit included; one that is Stalled fails at once.

        One that moves on, step by step, is waited for.
        """
        status: Object = {}

        def look() -> Object | None:
            nonlocal status
            found: Object = self.get(kind, name) or {}
            status = found.get("status") or {}
            if not status or status.get("observedGeneration") != found["metadata"]["generation"]:
                return None
            conditions: dict[str, Object] = {each["type"]: each for each in status.get("conditions", ())}
            if conditions.get("Stalled", {}).get("status") == "True":
                raise AssertionError(f"{kind}/{name} is stalled: {conditions['Stalled']}\n{self.picture()}")
            return status if conditions.get("Ready", {}).get("status") == "True" else None

        def movement() -> object:
            return status.get("phase"), status.get("progress"), len(status.get("attempts") or ())

        return self.wait(f"{kind}/{name} Ready", look, seconds, movement)

    def picture(self) -> str:
        """What a person would look at first."""
        lists = self.kubectl(
            "get", "datasets,finetunejobs,modeldeployments,batchinferences,jobs,pods,pvc", "-o", "wide", check=False
        )
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False).stdout.splitlines()[-15:]
        return "\n".join([lists.stdout, lists.stderr, *events, *self._logs_of_failed_pods()])

    def _logs_of_failed_pods(self) -> list[str]:
        failed = [pod["metadata"]["name"] for pod in self.find("pods") if pod["status"].get("phase") == "Failed"]
        return [f"--- {name}\n{self.kubectl('logs', name, '--tail=25', check=False).stdout}" for name in failed]


def read(path: str, **query: str) -> Object | None:
    """What the API server has at a path; None where there is nothing."""
    api = _api()
    request = api.param_serialize(
        "GET",
        path,
        query_params=[each for each in query.items() if each[1]],
        header_params={"Accept": "application/json"},
        auth_settings=["BearerToken"],
    )
    answer = api.call_api(*request, _request_timeout=30)
    text = answer.read()
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise AssertionError(f"GET {path}: {answer.status} {text.decode(errors='replace')}")
    return dict(json.loads(text))


@cache
def _api() -> Any:
    return config.new_client_from_config(str(KUBECONFIG))  # type: ignore[no-untyped-call]
