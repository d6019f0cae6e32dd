"""What is kept beside a ModelDeployment's pods: budget, autoscaler, route; and that it goes when it is not wanted."""

from typing import Any

import pytest

from tests.factories import Object, finished_job
from tests.unit.reconcile.deployments import roll_out, world
from tests.unit.reconcile.test_canary import CANARY, catch_up, counts, end_interval, new_run
from tests.unit.reconcile.world import World

GATEWAY = {"parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}]}
ROUTE = {**GATEWAY, "hostnames": ["support.example.com"]}


def served(**spec: Any) -> World:
    return roll_out(world(finished_job(), **spec))


def kept(here: World, kind: str) -> Object:
    item = here.find(kind, "support")
    assert item is not None
    return dict(item["applied"])


def kinds(here: World) -> set[str]:
    beside = {"HTTPRoute", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject"}
    return {kind for kind, items in here.children.items() if items} & beside


def test_one_pod_has_nothing_beside_it() -> None:
    here = served()
    assert kinds(here) == set()
    assert here.status["extras"] == []
    assert "topologySpreadConstraints" not in kept(here, "Deployment")["spec"]["template"]["spec"]


def test_several_pods_are_spread_and_have_a_budget() -> None:
    here = served(replicas=2)
    budget, pods = kept(here, "PodDisruptionBudget"), kept(here, "Deployment")["spec"]
    assert budget["spec"] == {"maxUnavailable": 1, "selector": pods["selector"]}
    constraints = pods["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in constraints] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert {each["whenUnsatisfiable"] for each in constraints} == {"ScheduleAnyway"}
    assert all(each["labelSelector"] == pods["selector"] for each in constraints)


def test_what_is_not_wanted_any_more_goes() -> None:
    here = served(replicas=2, route=ROUTE, autoscaling={"maxReplicas": 4})
    assert kinds(here) == {"PodDisruptionBudget", "HTTPRoute", "HorizontalPodAutoscaler"}
    here.edit(route=None, autoscaling=None, replicas=1)
    here.settle()
    assert kinds(here) == set()
    assert here.status["extras"] == []


def test_what_is_somebody_elses_stays() -> None:
    here = served(replicas=2)
    item = here.find("PodDisruptionBudget", "support")
    assert item is not None
    item["metadata"]["ownerReferences"] = []
    here.edit(replicas=1)
    here.settle()
    assert kinds(here) == {"PodDisruptionBudget"}
    assert here.status["extras"] == []


def test_with_an_autoscaler_the_number_of_pods_is_not_ours() -> None:
    here = served(autoscaling={"minReplicas": 2, "maxReplicas": 6, "queueDepth": 3})
    assert "replicas" not in kept(here, "Deployment")["spec"]
    assert kept(here, "HorizontalPodAutoscaler")["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "support"},
        "minReplicas": 2,
        "maxReplicas": 6,
        "metrics": [
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": "tgi_queue_size"},
                    "target": {"type": "AverageValue", "averageValue": "3"},
                },
            }
        ],
    }
    item = here.find("Deployment", "support")
    assert item is not None
    item["spec"] = {"replicas": 4}
    item["status"] |= {"replicas": 4, "updatedReplicas": 4, "readyReplicas": 3}
    here.settle()
    assert here.status["phase"] == "Updating"
    item["status"]["readyReplicas"] = 4
    here.settle()
    assert here.status["phase"] == "Serving"


@pytest.mark.parametrize(
    ("engine", "more", "metric"),
    [
        ("VLLM", {}, "vllm:num_requests_waiting"),
        ("TGI", {}, "tgi_queue_size"),
        ("VLLM", {"metric": "vllm_waiting"}, "vllm_waiting"),
    ],
)
def test_keda_asks_prometheus_for_the_engines_queue(engine: str, more: Object, metric: str) -> None:
    scaling = {"maxReplicas": 4, "keda": {"prometheus": "http://prometheus:9090"}, **more}
    here = served(autoscaling=scaling, engine={"type": engine})
    assert kinds(here) == {"PodDisruptionBudget", "ScaledObject"}
    spec = kept(here, "ScaledObject")["spec"]
    assert spec["minReplicaCount"] == 1, "scaling to zero is off"
    (trigger,) = spec["triggers"]
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus:9090",
        "query": f'sum({metric}{{namespace="team-a",pod=~"support-[a-z0-9]+-[a-z0-9]+"}})',
        "threshold": "5",
    }


def test_another_autoscaler_replaces_the_first() -> None:
    here = served(autoscaling={"maxReplicas": 4})
    here.edit(autoscaling={"maxReplicas": 4, "keda": {"prometheus": "http://prometheus:9090"}})
    here.settle()
    assert kinds(here) == {"PodDisruptionBudget", "ScaledObject"}


def test_a_route_leads_to_the_pods() -> None:
    spec = kept(served(route=ROUTE), "HTTPRoute")["spec"]
    assert spec == {**ROUTE, "rules": [{"backendRefs": [{"name": "support", "port": 8080}]}]}


def weights(here: World) -> dict[str, int | None]:
    (rule,) = kept(here, "HTTPRoute")["spec"]["rules"]
    return {backend["name"]: backend.get("weight") for backend in rule["backendRefs"]}


def test_a_canary_gets_its_share_of_the_route_when_it_is_proven_and_only_then() -> None:
    here = served(route=GATEWAY, rollout={"canary": {**CANARY, "weight": 25}})
    new_run(here)
    assert weights(here) == {"support": None}
    catch_up(here)
    assert weights(here) == {"support": 75, "support-canary": 25}
    counts(here, 4)
    end_interval(here)
    assert weights(here) == {"support": None}


def test_a_cluster_without_the_gateway_api_says_so_and_serves_all_the_same() -> None:
    here = served()
    here.edit(route=ROUTE)
    here.denials = {"support": "the cluster does not know gateway.networking.k8s.io/v1 HTTPRoute: install its CRDs"}
    here.settle()
    assert "install its CRDs" in here.says("Ready")
    assert here.says("Available").startswith("True")
