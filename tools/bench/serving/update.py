"""Another artifact on a running ModelDeployment of the local cluster: from `kubectl apply` to its first answer.

Needs the chart on the local cluster (`make install`). Makes a namespace with a random Llama, one dataset and two short
jobs, then has one ModelDeployment serve the first job's adapter, the second's, the first's ... while clients ask on.
"""

from __future__ import annotations

import json
import re
import secrets
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import httpx
from rich.console import Console

from tools.bench.figures import Row
from tools.bench.serving.steady import Asked, Steady
from tools.console import StepError, say
from tools.demo.ask import PORT
from tools.demo.files import CLAIM, make_files
from tools.demo.follow import until_all_ready, until_ready
from tools.demo.kubectl import Namespace, Object, wait
from tools.install import NAMESPACE, RELEASE
from tools.paths import KUBECONFIG

JOBS = ("first", "second")
DEPLOYMENT, ADAPTER = "bench", "tuned"
UPDATES = 3
SECONDS = 180
PROMPT = "def open(name, mode)\n"
API_VERSION = "finetune.dev/v1alpha1"

PARTS = ("seen", "scheduled", "delivered", "imported", "loaded", "proven", "traffic")
"""Each ends where the next begins; `PodTimes` says what each is."""


def why_not() -> str | None:
    """What keeps it from being measured here; None where nothing does."""
    if not KUBECONFIG.exists():
        return "there is no local cluster; `make install` makes one"
    asked = ["kubectl", f"--namespace={NAMESPACE}", "get", "deployment", RELEASE, "--request-timeout=5s"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        return "the local cluster does not answer, or has no operator; `make install`"
    return None


class PodTimes(NamedTuple):
    """When what became of a new pod, by `time.time()`."""

    applied: float
    """Before `kubectl apply` was started."""
    created: float
    """The pod is there: operator, Deployment and ReplicaSet controller have seen the change."""
    delivering: float
    """The init container has begun to verify: the pod has a node, volumes and a network, and Python has started."""
    delivered: float
    """Base and adapters are verified and in place."""
    imported: float
    """The engine's container runs, and has imported torch, transformers and peft."""
    loaded: float
    """It has base and adapters in memory."""
    proven: float
    """The prober has compared its answers."""
    answered: float
    """A client got the new adapter's answer through the Service."""

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of each part."""
        return {part: after - before for part, before, after in zip(PARTS, self[:-1], self[1:], strict=True)}


class Update:
    """The deployment in a namespace, and its clients."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def prepare(self) -> None:
        """Two jobs' adapters, the first of them served."""
        make_files(self.namespace)
        self.namespace.apply_objects(_dataset(), *(_job(name, seed) for seed, name in enumerate(JOBS)))
        things = [("dataset", "modules"), *(("finetunejob", name) for name in JOBS)]
        until_all_ready(self.namespace, things, 600, Console())
        self._serve(JOBS[0])
        until_ready(self.namespace, "modeldeployment", DEPLOYMENT, SECONDS, Console())
        service = self.namespace.get("service", DEPLOYMENT)
        assert service is not None
        self.url = f"http://{service['spec']['clusterIP']}:{PORT}"

    def _serve(self, job: str) -> None:
        adapters = [{"name": ADAPTER, "fineTuneJob": {"name": job}}]
        self.namespace.apply_objects(_resource("ModelDeployment", DEPLOYMENT, {"adapters": adapters}))

    def to(self, job: str) -> tuple[PodTimes, list[Asked]]:
        """Have another job's adapter served; what became of the new pod, and of every request meanwhile."""
        steady = Steady(self.url, PROMPT)
        with httpx.Client(timeout=60) as client:
            old = steady.ask(client, ADAPTER)
        before = {pod["metadata"]["name"] for pod in self._pods()}
        with pod_events(self.namespace) as created, steady.asking([ADAPTER]):
            applied = time.time()
            self._serve(job)
            new = wait(f"an answer of {job}", lambda: _first_other(steady.answers, old), SECONDS)
            until_ready(self.namespace, "modeldeployment", DEPLOYMENT, SECONDS, Console())
            # The old pod's end is part of it: that is where requests are lost.
            wait("the old pod's end", lambda: before.isdisjoint(self._names()) or None, SECONDS)
        if strangers := {each.logprobs for each in steady.answers} - {old.logprobs, new.logprobs}:
            raise StepError(f"answers of neither adapter: {strangers}")
        (name,) = self._names()
        return self._times(name, applied, created[name], new.at), steady.failures

    def _times(self, pod: str, applied: float, created: float, answered: float) -> PodTimes:
        def said(container: str, words: str) -> float:
            return _moment_of(self.namespace.kubectl("logs", pod, f"--container={container}", "--timestamps"), words)

        return PodTimes(
            applied,
            created,
            said("deliver", "verifying base"),
            said("deliver", f"adapter {ADAPTER} is"),
            said("engine", "loading"),
            said("engine", "loaded"),
            said("prober", "ready; proven"),
            answered,
        )

    def _pods(self) -> list[Object]:
        return self.namespace.find("pods", f"finetune.dev/name={DEPLOYMENT},finetune.dev/role=serve")

    def _names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self._pods()}


def _first_other(answers: list[Asked], old: Asked) -> Asked | None:
    return next((each for each in answers if each.logprobs != old.logprobs), None)


def _moment_of(log: str, words: str) -> float:
    """When the runtime has received the first line of a log that has these words."""
    line = next((line for line in log.splitlines() if words in line), "")
    # Python 3.11 reads six digits of a second; containerd writes nine.
    stamp = re.sub(r"(\.\d{6})\d*", r"\1", line.split(" ", 1)[0])
    if not stamp:
        raise StepError(f"no line with {words!r} in:\n{log}")
    return datetime.fromisoformat(stamp).timestamp()


@contextmanager
def pod_events(namespace: Namespace) -> Iterator[dict[str, float]]:
    """Name -> when a watch has first told of a pod."""
    seen: dict[str, float] = {}
    argv = [
        "kubectl",
        f"--namespace={namespace.name}",
        "get",
        "pods",
        "--watch",
        '--output=jsonpath={.metadata.name}{"\\n"}',
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        thread = threading.Thread(target=_note, args=(process.stdout, seen))
        thread.start()
        try:
            yield seen
        finally:
            process.terminate()
            thread.join()


def _note(lines: Any, seen: dict[str, float]) -> None:  # noqa: ANN401 - a text stream
    for line in lines:
        seen.setdefault(line.strip(), time.time())


def _resource(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _dataset() -> Object:
    source = {"persistentVolumeClaim": {"claimName": CLAIM, "path": "modules.jsonl"}}
    return _resource("Dataset", "modules", {"source": source, "format": "Classification", "split": {"test": 0.1}})


def _job(name: str, seed: int) -> Object:
    return _resource(
        "FineTuneJob",
        name,
        {
            "baseModel": {"persistentVolumeClaim": {"claimName": CLAIM, "path": "base"}},
            "dataset": {"name": "modules"},
            "adapter": {"rank": 16},
            "hyperparameters": {"epochs": 0.5, "learningRate": 0.003, "seed": seed},
            "evaluation": {"metrics": []},
        },
    )


def measure() -> list[Row]:
    """The rows, or none where there is no cluster; says why."""
    if reason := why_not():
        say(f"  adapter_update_s, failed_during_update: skipped: {reason}")
        return []
    namespace = Namespace(f"bench-serving-{secrets.token_hex(3)}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": namespace.name, "labels": labels}
    namespace.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    try:
        wait("the default service account", lambda: namespace.get("serviceaccount", "default"), 60)
        update = Update(namespace)
        update.prepare()
        return _rows([update.to(JOBS[(turn + 1) % 2]) for turn in range(UPDATES)])
    finally:
        namespace.kubectl("delete", "namespace", namespace.name, "--wait=false")


def _rows(updates: list[tuple[PodTimes, list[Asked]]]) -> list[Row]:
    times, failures = [each for each, _ in updates], [failed for _, each in updates for failed in each]
    for failed in failures:
        say(f"  failed: {failed}")
    for each in times:
        say("  " + ", ".join(f"{part} {seconds:.1f} s" for part, seconds in each.parts.items()))

    found = [each.parts for each in times]
    return [
        Row("adapter_update_s", _median([each.answered - each.applied for each in times]), "s"),
        *(Row(f"adapter_update_{part}_s", _median([parts[part] for parts in found]), "s") for part in PARTS),
        Row("failed_during_update", len(failures), "requests"),
    ]


def _median(seconds: list[float]) -> float:
    return round(statistics.median(seconds), 2)
