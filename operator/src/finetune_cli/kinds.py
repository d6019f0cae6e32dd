"""Names of our resources, and of those that they name."""

from enum import StrEnum

GROUP, VERSION = "finetune.dev", "v1alpha1"
JOBS, DATASETS, DEPLOYMENTS, BATCHES = "finetunejobs", "datasets", "modeldeployments", "batchinferences"
KINDS = {JOBS: "FineTuneJob", DATASETS: "Dataset", DEPLOYMENTS: "ModelDeployment", BATCHES: "BatchInference"}
"""Plural -> kind."""
WORDS = {"job": JOBS, "dataset": DATASETS, "deployment": DEPLOYMENTS, "batch": BATCHES}
"""What the command line calls them -> plural."""
PLURALS = {kind: plural for plural, kind in KINDS.items()}
NATIVE = {
    "ConfigMap": "configmaps",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Secret": "secrets",
    "ServiceAccount": "serviceaccounts",
}
"""Kubernetes' own kinds that ours name -> plural."""


class Kind(StrEnum):
    """One of `WORDS`."""

    @property
    def plural(self) -> str:
        """As the API server calls it."""
        return WORDS[self]


class RunKind(Kind):
    """What runs to an end."""

    JOB = "job"
    BATCH = "batch"


class Shown(Kind):
    """What `status` shows."""

    JOB = "job"
    BATCH = "batch"
    DEPLOYMENT = "deployment"


ORDER = [KINDS[DATASETS], KINDS[JOBS], KINDS[DEPLOYMENTS], KINDS[BATCHES]]
"""What is named by others comes first."""
