"""A canary promoted, a bad one rolled back; a merged model with all that may be kept beside it."""

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, deployment, job

pytestmark = pytest.mark.cluster

QUICK: Object = {"hyperparameters": {"epochs": 1, "learningRate": 0.003}, "evaluation": {"metrics": []}}
CANARY: Object = {"rollout": {"canary": {"interval": "1s"}}}


def train(kube: Kube, **hyperparameters: float) -> str:
    """Run the job with these; answers the artifact's digest."""
    kube.merge("finetunejob", "colour-namer", {"spec": {"hyperparameters": hyperparameters}})
    return str(kube.wait_ready("finetunejob", "colour-namer", 240)["artifact"]["digest"])


def served(kube: Kube) -> str:
    return str(kube.status("modeldeployment", "colours")["rollout"]["stable"]["adapters"][0]["digest"])


def beside(kube: Kube, kind: str, name: str) -> Object:
    return kube.wait(f"the {kind}", lambda: kube.get(kind, name), 90)


def test_a_canary_of_a_new_run_is_promoted_and_a_bad_one_rolled_back_while_the_old_serves(lab: Kube) -> None:
    lab.apply(dataset(), job(**QUICK), deployment(**CANARY))
    first = str(lab.wait_ready("modeldeployment", "colours", 180)["adapters"][0]["digest"])
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "clients"}, "stringData": {"keys": "one\ntwo"}}
    merged = deployment(
        "whole",
        adapters=[{"name": "namer", "fineTuneJob": {"name": "colour-namer"}, "digest": first}],
        adapterMode="Merged",
        autoscaling={"maxReplicas": 2},
        apiKeysSecretRef={"name": "clients", "key": "keys"},
    )
    lab.apply(secret, merged)
    second = train(lab, seed=7)
    assert second != first
    lab.wait("the promotion", lambda: served(lab) == second, 240)
    status = lab.wait_ready("modeldeployment", "colours", 240)
    assert [(each["digest"], each["state"]) for each in status["adapters"]] == [(second, "Serving")]
    before = beside(lab, "deployment", "colours")["metadata"]["generation"]

    bad = train(lab, learningRate=1e-9)
    lab.wait(
        "the rollback",
        lambda: lab.condition("modeldeployment", "colours", "Stalled").get("reason") == "RolledBack",
        240,
    )
    status = lab.status("modeldeployment", "colours")
    assert [(each["digest"], each["state"]) for each in status["adapters"]] == [(bad, "RolledBack")]
    assert [each["reason"] for each in status["rollout"]["rolledBack"]] == ["AdapterInert"]
    assert (status["phase"], status["readyReplicas"], served(lab)) == ("RolledBack", 1, second)
    assert beside(lab, "deployment", "colours")["metadata"]["generation"] == before, "nobody touched what serves"
    lab.wait("the canary's end", lambda: lab.get("deployment", "colours-canary") is None, 90)

    status = lab.wait_ready("modeldeployment", "whole", 240)
    assert (status["merged"]["adapter"], status["extras"]) == (
        first,
        ["HorizontalPodAutoscaler", "PodDisruptionBudget"],
    )
    service = f"/api/v1/namespaces/{lab.namespace}/services/whole:8080/proxy"
    assert "provide credentials" in lab.kubectl("get", "--raw", f"{service}/v1/models", check=False).stderr
    assert "tgi_request_count" in lab.kubectl("get", "--raw", f"{service}/metrics").stdout
    assert beside(lab, "horizontalpodautoscaler", "whole")["spec"]["maxReplicas"] == 2
    assert beside(lab, "poddisruptionbudget", "whole")["spec"]["maxUnavailable"] == 1
    lab.merge("modeldeployment", "whole", {"spec": {"autoscaling": None}})
    lab.wait("the autoscaler's end", lambda: lab.get("horizontalpodautoscaler", "whole") is None, 90)
    lab.merge("modeldeployment", "whole", {"spec": {"route": {"parentRefs": [{"name": "public"}]}}})
    lab.wait(
        "the missing Gateway API to be told",
        lambda: "install its CRDs" in lab.condition("modeldeployment", "whole", "Ready").get("message", ""),
        90,
    )
