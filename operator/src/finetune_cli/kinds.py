"""Names of our resources."""

GROUP, VERSION = "finetune.dev", "v1alpha1"
JOBS, DATASETS, DEPLOYMENTS = "finetunejobs", "datasets", "modeldeployments"
KINDS = {JOBS: "FineTuneJob", DATASETS: "Dataset", DEPLOYMENTS: "ModelDeployment"}
"""Plural -> kind."""
PLURALS = {kind: plural for plural, kind in KINDS.items()}
ORDER = [KINDS[DATASETS], KINDS[JOBS], KINDS[DEPLOYMENTS]]
"""What is named by others comes first."""
