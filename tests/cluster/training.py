"""Jobs that train long enough to be interrupted, ways to interrupt them, and what they have made so far."""

import json
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from finetune_contract.paths import POD_PORT
from tests.cluster.kube import Kube, Object
from tests.cluster.objects import job

LONG = {"epochs": 35, "learningRate": 0.001, "globalBatchSize": 4, "packing": False}
"""2,100 steps, some 25 s on an idle core: long enough to be interrupted."""

LONGER = {**LONG, "epochs": 100}
"""Where more has to happen meanwhile than one interruption."""

OFTEN = {"intervalMinutes": 0.05, "gracePeriodSeconds": 30}


def long_job(name: str, **spec: object) -> Object:
    default = {
        "dataset": {"name": "sentences"},
        "method": "CPT",
        "adapter": {"type": "None"},
        "hyperparameters": LONG,
        "checkpoints": OFTEN,
        "evaluation": {"metrics": []},
    }
    return job(name, **{**default, **spec})


def training_jobs(kube: Kube, name: str) -> list[Object]:
    return kube.find("jobs", f"finetune.dev/role=train,finetune.dev/name={name}")


def training_pods(kube: Kube, name: str) -> list[Object]:
    return kube.find("pods", f"finetune.dev/role=train,finetune.dev/name={name}")


def progress(kube: Kube, name: str, role: str = "train") -> Object:
    """What a running pod says itself; its resource's status tells up to 20 s later, when it may have ended."""
    for pod in kube.find("pods", f"finetune.dev/role={role},finetune.dev/name={name}"):
        if pod["status"].get("phase") != "Running" or "podIP" not in pod["status"]:
            continue
        connection = HTTPConnection(pod["status"]["podIP"], POD_PORT, timeout=5)
        try:
            connection.request("GET", "/progress")
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, HTTPException):  # it does not listen yet, or no more
            continue
        finally:
            connection.close()
    return {}


def has_checkpoint(kube: Kube, name: str) -> Callable[[], bool]:
    return lambda: bool(progress(kube, name).get("checkpointStep"))


def evict(kube: Kube, pod: str) -> None:
    """As `kubectl drain` does."""
    path = f"/api/v1/namespaces/{kube.namespace}/pods/{pod}/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": kube.namespace}}
    kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def kill(kube: Kube, pod: str) -> None:
    kube.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=0", "--force")


def snapshot(kube: Kube) -> dict[str, str]:
    """Every child and its version; pods of deployments may report their readiness again, so they are left out."""
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"]
        for item in kube.find("jobs,configmaps,deployments,services", "app.kubernetes.io/managed-by=finetune-operator")
    }
