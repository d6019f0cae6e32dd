"""A judge that fails, on a real cluster: asked again, counted, given up; nothing is lost, nothing trained again."""

import json

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, job
from tests.cluster.plugin import plugin
from tests.trainer.answering import Answer, answering
from tools.cluster.settings import NODE_IP

pytestmark = pytest.mark.cluster

ROWS, RETRIES, TRIES = 8, 2, 3


def pods_of(lab: Kube, role: str) -> list[Object]:
    return lab.find("jobs", f"finetune.dev/role={role},finetune.dev/name=colour-namer")


def scores_of(status: Object) -> set[tuple[str, str]]:
    return {(score["metric"], score["system"]) for score in status["evaluation"]}


def test_a_judge_that_talks_nonsense_fails_the_evaluation_and_loses_nothing(lab: Kube) -> None:
    measured = {("EvalLoss", "Tuned"), ("EvalLoss", "ZeroShot")}
    with answering(NODE_IP) as server:

        def bad(number: int, _prompt: str) -> Answer:
            """Refused, down, and then words."""
            said = {0: (429, "slow down", {"retry-after": "0.1"}), 1: (503, "no upstream", {})}
            return said.get(number % 3, (200, "Who can say?", {}))

        server.answer = bad
        judge = {"endpoint": server.url, "model": "judge-1", "retries": RETRIES, "concurrency": 1}
        evaluation = {
            "metrics": ["EvalLoss", "JudgeWinRate"], "baselines": ["ZeroShot"], "maxRows": ROWS, "judge": judge
        }  # fmt: skip
        lab.apply(
            dataset(),
            job(
                hyperparameters={"epochs": 1, "learningRate": 0.003},
                evaluation=evaluation,
                gate={"rules": [{"metric": "JudgeWinRate", "atLeast": 0.5}]},
            ),
        )
        lab.wait(
            "the end of measuring",
            lambda: lab.condition("finetunejob", "colour-namer", "Stalled").get("reason") == "EvaluationFailed",
            420,
        )
        failed = lab.status("finetunejob", "colour-namer")
        said = lab.condition("finetunejob", "colour-namer", "Evaluated")
        assert (said["status"], said["reason"]) == ("False", "EvaluationFailed")
        assert f"{server.url} (judge-1) gave no verdict on 1 of 1 rows after {RETRIES} retries each" in said["message"]
        assert "the artifact is kept" in said["message"]
        assert scores_of(failed) == measured
        made = failed["runs"][0]["artifact"]
        assert made["verdict"] == "Undecided"
        assert "artifact" not in failed
        assert lab.condition("finetunejob", "colour-namer", "GatePassed")["reason"] == "NotMeasured"
        # In the training pod, and as often as a Job whose failure may pass is tried; each gives up with the first row.
        assert (len(pods_of(lab, "train")), len(pods_of(lab, "evaluate"))) == (1, TRIES)
        assert len(server.seen) == (1 + TRIES) * (1 + RETRIES)

        fetched = plugin(lab, "report", "job", "colour-namer", "--file", "evaluation.json", "-o", "-")
        assert fetched.returncode == 0, fetched.stderr
        record = json.loads(fetched.stdout)
        assert (record["judge"]["requests"], record["judge"]["retries"]) == (1 + RETRIES, RETRIES)
        assert record["judge"]["nonsense"] == 1
        assert record["failure"]["reason"] == "EvaluationFailed"
        assert len(record["rows"]) == ROWS
        assert {"Tuned", "ZeroShot"} == set(record["rows"][0]["answers"])

        server.answer = lambda _number, _prompt: (200, "[[C]]", {})
        lab.merge("finetunejob", "colour-namer", {"spec": {"evaluation": {"judge": {"retries": 1}}}})
        lab.wait(
            "the new wish to be seen",
            lambda: lab.condition("finetunejob", "colour-namer", "Stalled").get("status") != "True",
            30,
        )
        done = lab.wait_ready("finetunejob", "colour-namer", 120)
        assert done["artifact"]["digest"] == made["digest"]
        assert scores_of(done) == measured | {("JudgeWinRate", "Tuned"), ("JudgeWinRate", "ZeroShot")}
        assert len(pods_of(lab, "train")) == 1
        assert len(done["attempts"]) == 1
