"""Jobs that run one pod to an end, and the ConfigMap with their plan."""

from finetune_contract.base import Document
from finetune_operator.api.base import Metadata
from finetune_operator.api.podtemplate import PodTemplate
from finetune_operator.manifests.naming import ANNOTATION_GENERATION, Manifest, owner_reference
from finetune_operator.manifests.podtemplate import pod_template


def plan_config_map(name: str, plan: Document, labels: dict[str, str], owner: Manifest) -> Manifest:
    """The immutable ConfigMap of a plan."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(name, labels, owner),
        "immutable": True,
        "data": {"plan.json": plan.to_json()},
    }


def job(name: str, pod: Manifest, labels: dict[str, str], owner: Manifest, template: PodTemplate) -> Manifest:
    """A Job of one pod and one try: what happens after a failure is decided by the operator.

    `podReplacementPolicy: Failed` and failing on a disruption keep a second pod from starting while the first one ends.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(name, labels, owner),
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": pod_template({**pod, "restartPolicy": "Never"}, labels, template),
        },
    }


def owner_of(kind: str, metadata: Metadata) -> Manifest:
    """What children need to know of their owner."""
    return {
        "kind": kind,
        "name": metadata.name,
        "uid": metadata.uid,
        "namespace": metadata.namespace,
        "generation": metadata.generation,
    }


def _metadata(name: str, labels: dict[str, str], owner: Manifest) -> Manifest:
    return {
        "name": name,
        "namespace": owner["namespace"],
        "labels": labels,
        "annotations": {ANNOTATION_GENERATION: str(owner["generation"])},
        "ownerReferences": [owner_reference(owner["kind"], owner["name"], owner["uid"])],
    }
