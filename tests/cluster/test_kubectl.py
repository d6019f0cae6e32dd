"""What kubectl shows of the three kinds: accepted CRDs, columns, explanations."""

import json

import pytest

from finetune_operator.api.base import GROUP
from finetune_operator.api.crd import RESOURCES
from tests import factories
from tests.cluster.kube import Kube

pytestmark = pytest.mark.cluster

PLURALS = [meta.plural for _, meta, _ in RESOURCES]

COLUMNS = {
    "datasets": "NAME PHASE ROWS FORMAT REASON AGE",
    "finetunejobs": "NAME PHASE PROGRESS LOSS REASON AGE",
    "modeldeployments": "NAME PHASE READY URL REASON AGE",
    "batchinferences": "NAME PHASE PROGRESS ROWS FAILED REASON AGE",
}


@pytest.mark.parametrize("plural", PLURALS)
def test_the_crd_is_established_and_structural(system: Kube, plural: str) -> None:
    found = json.loads(system.kubectl("get", "crd", f"{plural}.{GROUP}", "-o", "json").stdout)
    conditions = {condition["type"]: condition["status"] for condition in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_get_shows_what_people_look_for(kube: Kube) -> None:
    made = (
        factories.make_dataset(source={"configMap": {"name": "none", "key": "a"}}),
        factories.make_job(dataset={"name": "none"}),
        factories.make_deployment(),
        factories.make_batch(),
    )
    kube.apply(*({**item, "metadata": {"name": item["metadata"]["name"]}} for item in made))
    for plural, columns in COLUMNS.items():
        assert kube.kubectl("get", plural).stdout.split("\n")[0].split() == columns.split()
        wide = kube.kubectl("get", plural, "-o", "wide").stdout.split("\n")[0].split()
        assert set(wide) > set(columns.split())
    listed = kube.kubectl("get", "llm", "-o", "name").stdout.split()
    kinds = ["batchinference", "dataset", "finetunejob", "modeldeployment"]
    assert sorted(name.split(".")[0] for name in listed) == kinds


@pytest.mark.parametrize("plural", PLURALS)
def test_explain_describes_every_field(system: Kube, plural: str) -> None:
    said = system.kubectl("explain", f"{plural}.spec", "--recursive").stdout
    assert "<no description>" not in said
    assert "DESCRIPTION:" in system.kubectl("explain", f"{plural}.spec").stdout
    assert "<no description>" not in system.kubectl("explain", f"{plural}.status").stdout


def test_explain_reads_like_documentation(system: Kube) -> None:
    said = " ".join(system.kubectl("explain", "finetunejob.spec.adapter").stdout.split())
    assert "What is trained: a LoRA adapter, or with type None every weight." in said
    assert "rank <integer> Rank of the adapter's matrices; more learns more and costs more memory." in said
    assert "enum: LoRA, QLoRA, DoRA, rsLoRA" in said
