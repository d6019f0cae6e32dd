"""What an attempt of several ranks has beside a plain Job: fixed pods that know each other by name."""

from typing import Any

from finetune_operator.api.base import Resources
from finetune_operator.manifests.naming import Manifest

INDEX = "batch.kubernetes.io/job-completion-index"
"""Label and annotation of an Indexed Job's pods: 0 to nodes - 1."""

RENDEZVOUS_PORT = 29500
"""Where rank 0 listens; torchrun's own default."""

NAME_LIMIT = 60
"""Characters of an Indexed Job's name: its pods' host names are `<job>-<index>`, at most 63."""


def gpus(resources: Resources) -> int:
    """GPUs of one pod: whole ones, whoever makes them; 0 without any."""
    asked = {**resources.requests, **resources.limits}
    return sum(int(str(count)) for name, count in asked.items() if name.endswith("/gpu") and str(count).isdigit())


def processes(resources: Resources) -> int:
    """Ranks in one pod: one per GPU; one where there is none, which uses all CPUs."""
    return max(1, gpus(resources))


def indexed(job: Manifest, nodes: int) -> Manifest:
    """A Job of one pod as one of several, each with an index and a name in the Service that is called as the Job.

    With no retries of its own the loss of any pod fails the Job at once, which ends the others: the next attempt
    starts the whole group from the checkpoint.
    """
    spec = job["spec"]
    pod = {**spec["template"]["spec"], "subdomain": job["metadata"]["name"]}
    template = {**spec["template"], "spec": pod}
    whole = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, "template": template}
    return {**job, "spec": {**spec, **whole}}


def service(job: Manifest) -> Manifest:
    """The headless Service that gives an Indexed Job's pods their names."""
    metadata = job["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            # Ranks look for each other before they are ready: training pods have no readiness at all.
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": metadata["name"]},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def environment(name: str) -> tuple[dict[str, Any], ...]:
    """What the pods of an Indexed Job need to find each other, in torchrun's words."""
    field = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    return (
        {"name": "NODE_RANK", "valueFrom": field},
        {"name": "MASTER_ADDR", "value": f"{name}-0.{name}"},
        {"name": "MASTER_PORT", "value": str(RENDEZVOUS_PORT)},
    )
