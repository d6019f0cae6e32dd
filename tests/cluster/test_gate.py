"""The gate on a real cluster: refused, relaxed, served; and nothing trained or measured a second time."""

import json

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, deployment, job
from tests.cluster.plugin import plugin

pytestmark = pytest.mark.cluster

FAILS = {"rules": [{"metric": "EvalLoss", "atMost": 0}]}
EVALUATION = {"metrics": ["EvalLoss"], "baselines": ["ZeroShot"], "maxRows": 8}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"metric": "ExactMatch", "atLeast": 0.9}, "add it to spec.evaluation.metrics"),
        ({"metric": "EvalLoss", "betterThan": "FewShot"}, "add it to spec.evaluation.baselines"),
        ({"metric": "EvalLoss", "atMost": 1, "by": 0.1}, "by goes with betterThan or notWorseThan"),
    ],
    ids=["metric", "baseline", "by"],
)
def test_a_rule_that_could_never_be_met_is_refused(kube: Kube, rule: Object, words: str) -> None:
    assert words in kube.apply(job(evaluation=EVALUATION, gate={"rules": [rule]}), check=False)


def test_what_fails_its_gate_is_not_served_until_the_gate_is_relaxed(lab: Kube) -> None:
    lab.apply(
        dataset(),
        job(hyperparameters={"epochs": 1, "learningRate": 0.003}, evaluation=EVALUATION, gate=FAILS),
        deployment(),
    )
    watched = plugin(lab, "watch", "colour-namer", "--timeout", "240s")
    assert watched.returncode == 3, watched.stdout + watched.stderr
    assert "✗   EvalLoss" in watched.stdout
    failed = lab.status("finetunejob", "colour-namer")
    assert failed["phase"] == "GateFailed"
    assert "artifact" not in failed
    made = failed["runs"][0]["artifact"]
    lab.wait(
        "the deployment to refuse it",
        lambda: lab.condition("modeldeployment", "colours", "Stalled").get("reason") == "GateFailed",
        120,
    )
    message = lab.condition("modeldeployment", "colours", "AdaptersValid")["message"]
    assert made["digest"] in message
    assert "is not atMost 0" in message
    assert lab.get("deployment", "colours") is None
    before = [item["metadata"]["uid"] for item in lab.find("jobs")]
    relaxed = {"rules": [{"metric": "EvalLoss", "atMost": 100}, {"metric": "EvalLoss", "betterThan": "ZeroShot"}]}
    lab.merge("finetunejob", "colour-namer", {"spec": {"gate": relaxed}})
    lab.wait("the job", lambda: lab.status("finetunejob", "colour-namer").get("artifact"), 120)
    # The deployment was told to give up; it is not any more.
    lab.wait("the roll-out", lambda: lab.get("deployment", "colours"), 120)
    served = lab.wait_ready("modeldeployment", "colours", 120)
    assert [(each["digest"], each["verdict"]) for each in served["adapters"]] == [(made["digest"], "Passed")]
    assert [item["metadata"]["uid"] for item in lab.find("jobs")] == before, "nothing is trained or measured again"
    # Base and adapter are asked by way of the API server.
    talk = plugin(lab, "chat", "colours", "-m", "number 1 of 5: colour of sky", "--max-tokens", "8", "-o", "json")
    assert talk.returncode == 0, talk.stderr
    said = {each["model"]: each["answer"] for each in json.loads(talk.stdout)}
    assert said.keys() == {"colours", "namer"}
    assert said["colours"] != said["namer"]
