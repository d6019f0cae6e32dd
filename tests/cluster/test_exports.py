"""spec.exports on a real cluster: a merged model by a Job of its own, and an edit that trains nothing."""

import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, job

pytestmark = pytest.mark.cluster


def exports(kube: Kube) -> list[Object]:
    return list(kube.status("finetunejob", "colour-namer").get("exports") or [])


def test_an_edit_of_exports_starts_an_export_job_and_nothing_else(lab: Kube) -> None:
    lab.apply(dataset(), job(hyperparameters={"epochs": 1, "learningRate": 0.003}))
    before = lab.wait_ready("finetunejob", "colour-namer", 240)
    jobs = {item["metadata"]["uid"] for item in lab.find("jobs")}
    lab.merge("finetunejob", "colour-namer", {"spec": {"exports": [{"type": "MergedModel"}]}})
    lab.wait("the merged model", lambda: exports(lab) and exports(lab)[0]["state"] == "Done", 240)
    (merged,) = exports(lab)
    assert merged["artifact"] == before["artifact"]["digest"]
    assert merged["uri"].startswith("pvc://finetune-artifacts/exports/")
    assert lab.condition("finetunejob", "colour-namer", "Exported")["status"] == "True"
    after = lab.status("finetunejob", "colour-namer")
    assert (after["attempts"], after["artifact"]) == (before["attempts"], before["artifact"])
    started = [item for item in lab.find("jobs") if item["metadata"]["uid"] not in jobs]
    assert {item["metadata"]["labels"]["finetune.dev/role"] for item in started} <= {"export"}
