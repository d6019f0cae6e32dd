"""Methods on a real cluster: an adapter that DPO trained further is proven on the base that it was made for."""

import json

import pytest

from tests.cluster.kube import Kube
from tests.cluster.objects import dataset, deployment, job

pytestmark = pytest.mark.cluster

COLOURS = {"sky": "blue", "grass": "green", "snow": "white", "coal": "black"}


def pairs() -> str:
    """What colour a thing is, and what it is not."""
    rows = [
        {"prompt": f"{number} times, what colour is {thing}?", "chosen": f" {colour}", "rejected": f" {wrong}"}
        for number in range(8)
        for thing, colour in COLOURS.items()
        for wrong in [next(other for other in COLOURS.values() if other != colour)]
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_an_adapter_is_trained_further_by_dpo_and_served_on_its_base(lab: Kube) -> None:
    lab.apply(
        dataset(),
        dataset("pairs", source={"inline": {"jsonl": pairs()}}),
        job(hyperparameters={"epochs": 1, "learningRate": 0.003}, evaluation={"metrics": []}),
        job(
            "preferred",
            baseModel={"fineTuneJob": {"name": "colour-namer"}},
            dataset={"name": "pairs"},
            method="DPO",
            dpo={"beta": 0.1},
            hyperparameters={"epochs": 2, "learningRate": 0.001, "globalBatchSize": 8},
            evaluation={"metrics": ["PreferenceAccuracy"], "maxRows": 8},
        ),
        job("refused", dataset={"name": "pairs"}),
        deployment("answers", adapters=[{"name": "preferred", "fineTuneJob": {"name": "preferred"}}]),
    )
    second = lab.wait_ready("finetunejob", "preferred", 240)
    first = lab.status("finetunejob", "colour-namer")
    assert second["artifact"]["base"] == first["artifact"]["base"]
    assert [other["digest"] for other in second["run"]["inputs"]["others"]] == [first["artifact"]["digest"]]
    assert [score["metric"] for score in second["evaluation"]] == ["PreferenceAccuracy"]
    refusal = next(each for each in lab.status("finetunejob", "refused")["conditions"] if each["type"] == "Ready")
    assert refusal["reason"] == "DatasetInvalid"
    assert "SFT needs Messages or PromptCompletion or Classification rows" in refusal["message"]
    lab.wait_ready("modeldeployment", "answers", 240)
