"""The operator: watches Datasets, FineTuneJobs, ModelDeployments and BatchInferences and makes the cluster match them.

Layers, enforced by lint: handlers > engine > reconcile > manifests > api. Everything that decides is pure; only
`cluster` talks to the API server, only `handlers` and `__main__` know Kopf.
"""
