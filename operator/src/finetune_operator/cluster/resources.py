"""What the operator may ask the API server for: the table `RESOURCES`, which the chart's RBAC is tested against."""

from typing import NamedTuple

from finetune_operator.manifests.naming import API_VERSION, LABEL_MANAGED_BY, MANAGER, Manifest

MANAGED = f"{LABEL_MANAGED_BY}={MANAGER}"
"""Label selector of children."""


JOB_UID = "kueue.x-k8s.io/job-uid"
"""Label of a Workload: the uid of its Job."""


class Resource(NamedTuple):
    """Where a kind lives in the API, and what the operator does with it."""

    api_version: str
    plural: str
    verbs: frozenset[str]

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL's path; without a namespace, of all namespaces."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join(parts)


def _resource(api_version: str, plural: str, verbs: str) -> Resource:
    return Resource(api_version, plural, frozenset(verbs.split()))


OWN_KINDS = ("Dataset", "FineTuneJob", "ModelDeployment", "BatchInference")
CHILD_KINDS = ("Job", "Pod", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim")
WATCHED = "get list watch"
KEPT = "get create patch delete"
"""Of what is looked up by name and not watched; some clusters do not have the kind."""
RESOURCES = {
    "Dataset": _resource(API_VERSION, "datasets", f"{WATCHED} update/status"),
    "FineTuneJob": _resource(API_VERSION, "finetunejobs", f"{WATCHED} update/status"),
    "ModelDeployment": _resource(API_VERSION, "modeldeployments", f"{WATCHED} update/status"),
    "BatchInference": _resource(API_VERSION, "batchinferences", f"{WATCHED} update/status"),
    "Job": _resource("batch/v1", "jobs", f"{WATCHED} create delete"),
    "Pod": _resource("v1", "pods", WATCHED),
    "Deployment": _resource("apps/v1", "deployments", f"{WATCHED} create patch delete"),
    "Service": _resource("v1", "services", f"{WATCHED} create patch delete"),
    "ConfigMap": _resource("v1", "configmaps", f"{WATCHED} create delete"),
    "PersistentVolumeClaim": _resource("v1", "persistentvolumeclaims", f"{WATCHED} create"),
    "PodDisruptionBudget": _resource("policy/v1", "poddisruptionbudgets", KEPT),
    "HorizontalPodAutoscaler": _resource("autoscaling/v2", "horizontalpodautoscalers", KEPT),
    "ScaledObject": _resource("keda.sh/v1alpha1", "scaledobjects", KEPT),
    "HTTPRoute": _resource("gateway.networking.k8s.io/v1", "httproutes", KEPT),
    "Workload": _resource("kueue.x-k8s.io/v1beta2", "workloads", "list"),
    "LocalQueue": _resource("visibility.kueue.x-k8s.io/v1beta2", "localqueues", "get/pendingworkloads"),
    "Event": _resource("events.k8s.io/v1", "events", "list create patch"),
    "Lease": _resource("coordination.k8s.io/v1", "leases", "get create update"),
}
"""Kind -> resource. `verb/subresource` is a verb on a subresource."""


def controller_uid(manifest: Manifest) -> str | None:
    """The uid of the owner that controls an object."""
    owners = manifest["metadata"].get("ownerReferences", ())
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


def permitted(kind: str, verb: str) -> Resource:
    """Where a kind is; fails for what is not in the table."""
    resource = RESOURCES[kind]
    assert verb in resource.verbs, f"{verb} of {kind} is not in cluster.RESOURCES, hence not in the chart's RBAC"
    return resource
