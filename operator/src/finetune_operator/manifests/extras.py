"""What may be kept beside the Deployment and Service of a ModelDeployment: a route, a budget, an autoscaler.

All have the deployment's name. None of these kinds is watched: some clusters do not have them.
"""

from finetune_contract.paths import POD_PORT
from finetune_operator.api.autoscaling import Autoscaling
from finetune_operator.api.modeldeployment import ModelDeployment
from finetune_operator.api.rollout import Route
from finetune_operator.manifests import serving
from finetune_operator.manifests.engines import ENGINES
from finetune_operator.manifests.naming import Manifest

ROUTE = "HTTPRoute"
BUDGET = "PodDisruptionBudget"
AUTOSCALER = "HorizontalPodAutoscaler"
SCALED_OBJECT = "ScaledObject"


def build(deployment: ModelDeployment, *, is_canary_proven: bool) -> tuple[Manifest, ...]:
    """What the spec asks for; what a cluster may lack comes last.

    Args:
        deployment: Whose they are.
        is_canary_proven: Whether there are canary pods that may get requests.
    """
    spec, found = deployment.spec, []
    if serving.most_replicas(deployment) > 1:
        found.append(_budget(deployment))
    if spec.autoscaling:
        make = _scaled_object if spec.autoscaling.keda else _autoscaler
        found.append(make(deployment, spec.autoscaling))
    if spec.route:
        found.append(_route(deployment, spec.route, is_canary_proven=is_canary_proven))
    return tuple(found)


def _manifest(deployment: ModelDeployment, api_version: str, kind: str, spec: Manifest) -> Manifest:
    metadata = serving.child_metadata(deployment)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _budget(deployment: ModelDeployment) -> Manifest:
    selector = {"matchLabels": serving.selector(deployment)}
    return _manifest(deployment, "policy/v1", BUDGET, {"maxUnavailable": 1, "selector": selector})


def _autoscaler(deployment: ModelDeployment, wanted: Autoscaling) -> Manifest:
    target = {"type": "AverageValue", "averageValue": str(wanted.queue_depth)}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.metadata.name},
        "minReplicas": wanted.min_replicas,
        "maxReplicas": wanted.max_replicas,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": _metric(deployment, wanted)}, "target": target}}],
    }
    return _manifest(deployment, "autoscaling/v2", AUTOSCALER, spec)


def _scaled_object(deployment: ModelDeployment, wanted: Autoscaling) -> Manifest:
    assert wanted.keda is not None
    metadata = deployment.metadata
    # Pods of the Deployment, not of its canary, which has one word more.
    pods = f'namespace="{metadata.namespace}",pod=~"{metadata.name}-[a-z0-9]+-[a-z0-9]+"'
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": wanted.keda.prometheus,
            "query": f"sum({_metric(deployment, wanted)}{{{pods}}})",
            "threshold": str(wanted.queue_depth),
        },
    }
    spec = {
        "scaleTargetRef": {"name": metadata.name},
        "minReplicaCount": wanted.min_replicas,
        "maxReplicaCount": wanted.max_replicas,
        "triggers": [trigger],
    }
    return _manifest(deployment, "keda.sh/v1alpha1", SCALED_OBJECT, spec)


def _metric(deployment: ModelDeployment, wanted: Autoscaling) -> str:
    return wanted.metric or ENGINES[deployment.spec.engine.type].QUEUE_METRIC


def _route(deployment: ModelDeployment, route: Route, *, is_canary_proven: bool) -> Manifest:
    canary = deployment.spec.rollout.canary
    backends = [_backend(deployment, serving.MAIN)]
    if canary and is_canary_proven:
        backends = [
            {**_backend(deployment, serving.MAIN), "weight": 100 - canary.weight},
            {**_backend(deployment, serving.CANARY), "weight": canary.weight},
        ]
    spec: Manifest = {
        "parentRefs": [reference.to_dict() for reference in route.parent_refs],
        "rules": [{"backendRefs": backends}],
    }
    if route.hostnames:
        spec["hostnames"] = list(route.hostnames)
    return _manifest(deployment, "gateway.networking.k8s.io/v1", ROUTE, spec)


def _backend(deployment: ModelDeployment, track: serving.Track) -> Manifest:
    return {"name": serving.name_of(deployment, track), "port": POD_PORT}
