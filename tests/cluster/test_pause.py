"""A run that is paused, stopped at a limit, robbed of its Job and cleaned up on a real cluster ends once, and well."""

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import text_dataset
from tests.cluster.training import long_job, progress, training_jobs, training_pods

pytestmark = pytest.mark.cluster


def patch(kube: Kube, name: str, spec: Object) -> None:
    kube.merge("finetunejob", name, {"spec": spec})


def attempts(kube: Kube, name: str) -> list[Object]:
    return list(kube.status("finetunejob", name).get("attempts") or ())


def test_a_run_is_paused_limited_lost_and_cleaned_up_and_trains_once(lab: Kube) -> None:
    name = "stop-and-go"
    lab.apply(text_dataset("held-out", split={"test": 0.1}))
    lab.apply(long_job(name, dataset={"name": "held-out"}))
    first = lab.wait("a first checkpoint", lambda: progress(lab, name).get("checkpointStep"), 120)

    patch(lab, name, {"suspend": True})
    lab.wait("the pause", lambda: lab.status("finetunejob", name)["phase"] == "Suspended", 60)
    lab.wait("the pod's end", lambda: not training_pods(lab, name), 90)
    assert [attempt["reason"] for attempt in attempts(lab, name)] == ["Suspended"]

    used = lab.status("finetunejob", name)["secondsTotal"]
    patch(lab, name, {"suspend": False, "limits": {"duration": f"{used + 4}s"}})
    lab.wait("the limit", lambda: lab.status("finetunejob", name)["phase"] == "Failed", 60)
    assert attempts(lab, name)[1]["reason"] == "DeadlineExceeded"
    assert used + 4 <= lab.status("finetunejob", name)["secondsTotal"] <= used + 20
    assert lab.condition("finetunejob", name, "Failed")["reason"] == "DeadlineExceeded"

    patch(lab, name, {"limits": {"duration": "1h"}})
    lab.wait("the third attempt", lambda: bool(training_pods(lab, name)) and running(lab, name), 60)
    lab.kubectl("delete", "jobs", "-l", f"finetune.dev/role=train,finetune.dev/name={name}", "--wait=false")
    status = lab.wait_ready("finetunejob", name, 240)
    assert [attempt["reason"] for attempt in status["attempts"]][2:] == ["PodDeleted", "Succeeded"]
    assert status["attempts"][-1]["resumedFromStep"] >= first
    assert status["progress"]["step"] == status["progress"]["totalSteps"]

    patch(lab, name, {"evaluation": {"metrics": ["EvalLoss"], "maxRows": 5, "split": "test"}})
    lab.wait("the evaluation", lambda: lab.status("finetunejob", name)["phase"] == "Evaluating", 60)
    again = lab.wait_ready("finetunejob", name, 180)
    assert again["artifact"] == status["artifact"]
    assert [(score["metric"], score["rows"]) for score in again["evaluation"]] == [("EvalLoss", 5)]
    assert again["attempts"] == status["attempts"]

    patch(lab, name, {"ttlAfterFinished": "1s"})
    lab.wait("the clean-up", lambda: not training_jobs(lab, name) and not training_pods(lab, name), 90)
    assert lab.status("finetunejob", name)["phase"] == "Succeeded"


def running(kube: Kube, name: str) -> bool:
    return bool(kube.condition("finetunejob", name, "Running")["status"] == "True")
