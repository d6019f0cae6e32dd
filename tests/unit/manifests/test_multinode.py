"""An attempt of several nodes: fixed pods that find each other, and end together."""

from typing import Any

import pytest

from finetune_contract.training import ShardingStrategy, TrainingPlan
from finetune_operator.api.base import Resources
from finetune_operator.manifests import multinode
from tests.factories import Object
from tests.unit.manifests.objects import LONG, trained


def attempt(**changes: Any) -> tuple[Object, Object, Object]:
    config_map, service, job = trained(**{"parallelism": {"nodes": 3}, **changes})
    return config_map, service, job


def test_pods_find_rank_0_by_name() -> None:
    _, service, job = attempt()
    name = job["metadata"]["name"]
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"] == name
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    (container,) = job["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["MASTER_ADDR"]["value"] == f"{name}-0.{name}"
    assert env["MASTER_PORT"]["value"] == str(service["spec"]["ports"][0]["port"])
    assert "job-completion-index" in env["NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]


def test_the_number_of_pods_is_fixed_and_one_loss_ends_them_all() -> None:
    spec = attempt()[2]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert spec["podFailurePolicy"]["rules"][0]["action"] == "FailJob"


def test_one_node_is_a_plain_job() -> None:
    config_map, job = trained()
    assert "completionMode" not in job["spec"]
    assert TrainingPlan.model_validate_json(config_map["data"]["plan.json"]).parallelism.ranks == 1


def test_the_plan_says_how_many_and_how() -> None:
    config_map, _, _ = attempt(parallelism={"nodes": 2, "strategy": "FSDP", "timeoutSeconds": 90})
    plan = TrainingPlan.model_validate_json(config_map["data"]["plan.json"]).parallelism
    assert (plan.ranks, plan.strategy, plan.timeout_seconds) == (2, ShardingStrategy.FSDP, 90)


def test_host_names_of_long_owners_fit() -> None:
    _, service, job = attempt(name=LONG, number=99, parallelism={"nodes": 64})
    assert job["metadata"]["name"] == service["metadata"]["name"]
    assert len(f"{job['metadata']['name']}-63") <= 63


@pytest.mark.parametrize(
    ("resources", "processes"),
    [
        pytest.param({}, 1, id="nothing asked for"),
        pytest.param({"limits": {"cpu": "8", "memory": "64Gi"}}, 1, id="CPUs"),
        pytest.param({"limits": {"nvidia.com/gpu": 8}}, 8, id="eight GPUs"),
        pytest.param({"requests": {"nvidia.com/gpu": "2"}, "limits": {"nvidia.com/gpu": "2"}}, 2, id="said twice"),
        pytest.param({"limits": {"amd.com/gpu": 4}}, 4, id="of another maker"),
        pytest.param({"limits": {"nvidia.com/mig-1g.10gb": 1}}, 1, id="a slice of one"),
    ],
)
def test_a_pod_has_a_rank_per_gpu(resources: Object, processes: int) -> None:
    assert multinode.processes(Resources.model_validate(resources)) == processes
