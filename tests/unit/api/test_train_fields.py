"""Which fields of a FineTuneJob decide its run key."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.run import run_key
from finetune_operator.api.base import ApiModel, FieldClass
from finetune_operator.api.finetunejob import FineTuneJob, FineTuneJobSpec
from finetune_operator.reconcile.finetunejob import spec_key
from tests import factories

SAMPLES = Path(__file__).parents[1] / "contract" / "run_keys.json"


def job(**spec: Any) -> FineTuneJob:
    return FineTuneJob.model_validate(factories.make_job(**spec))


def train_fields(**spec: Any) -> dict[str, Any]:
    return job(**spec).spec.train_fields()


@pytest.mark.parametrize("sample", json.loads(SAMPLES.read_text()), ids=lambda sample: sample["name"])
def test_a_spec_has_the_key_it_always_had(sample: dict[str, Any]) -> None:
    fields = train_fields(**sample["spec"])
    assert fields == sample["train"]
    assert run_key(fields, sample["dataset"], sample["base"]) == sample["key"]


CHANGES: dict[str, tuple[FieldClass, dict[str, Any]]] = {
    "method": (FieldClass.TRAIN, {"method": "CPT"}),
    "dpo": (FieldClass.TRAIN, {"dpo": {"beta": 0.2}}),
    "orpo": (FieldClass.TRAIN, {"orpo": {"beta": 0.2}}),
    "simpo": (FieldClass.TRAIN, {"simpo": {"gamma": 0.2}}),
    "kto": (FieldClass.TRAIN, {"kto": {"desirableWeight": 2}}),
    "grpo": (FieldClass.TRAIN, {"grpo": {"rewards": [{"exactMatch": {}}]}}),
    "rloo": (FieldClass.TRAIN, {"rloo": {"rewards": [{"regex": {"pattern": "x"}}]}}),
    "distillation": (FieldClass.TRAIN, {"distillation": {"teacher": {"fineTuneJob": {"name": "large"}}}}),
    "adapter": (FieldClass.TRAIN, {"adapter": {"rank": 8}}),
    "baseModel": (FieldClass.INPUT, {"baseModel": {"s3": {"uri": "s3://bucket/x"}}}),
    "dataset": (FieldClass.INPUT, {"dataset": {"name": "others"}}),
    "parallelism": (FieldClass.OPERATIONAL, {"parallelism": {"nodes": 2}}),
    "preflight": (FieldClass.OPERATIONAL, {"preflight": "Warn"}),
    "tracking": (
        FieldClass.OPERATIONAL,
        {"tracking": {"mlflow": {"uri": "https://mlflow.example.com", "experiment": "support"}}},
    ),
    "validation.intervalSteps": (FieldClass.TRAIN, {"validation": {"intervalSteps": 5}}),
    "validation.maxRows": (FieldClass.TRAIN, {"validation": {"maxRows": 5}}),
    "validation.keepBest": (FieldClass.TRAIN, {"validation": {"keepBest": True}}),
    "validation.earlyStopping": (FieldClass.TRAIN, {"validation": {"earlyStopping": {"patience": 2}}}),
    "checkpoints": (FieldClass.OPERATIONAL, {"checkpoints": {"keep": 5}}),
    "evaluation": (FieldClass.EVALUATE, {"evaluation": {"maxRows": 5}}),
    "gate": (FieldClass.GATE, {"gate": {"rules": [{"metric": "EvalLoss", "atMost": 1}]}}),
    "exports": (FieldClass.EXPORT, {"exports": [{"type": "MergedModel"}]}),
    "retries": (FieldClass.OPERATIONAL, {"retries": {"limit": 5}}),
    "limits": (FieldClass.OPERATIONAL, {"limits": {"truncatedShare": 0.5}}),
    "resources": (FieldClass.OPERATIONAL, {"resources": {"limits": {"nvidia.com/gpu": 1}}}),
    "scheduling": (FieldClass.OPERATIONAL, {"scheduling": {"nodeSelector": {"a": "b"}}}),
    "podTemplate": (FieldClass.OPERATIONAL, {"podTemplate": {"serviceAccountName": "trainer"}}),
    "suspend": (FieldClass.OPERATIONAL, {"suspend": True}),
    "rerun": (FieldClass.INPUT, {"rerun": "again"}),
    "storage": (FieldClass.OPERATIONAL, {"storage": {"s3": {"uri": "s3://bucket/x"}}}),
    "reuse": (FieldClass.INPUT, {"reuse": "Never"}),
    "ttlAfterFinished": (FieldClass.OPERATIONAL, {"ttlAfterFinished": "1h"}),
    **{
        f"hyperparameters.{name}": (class_, {"hyperparameters": {name: value}})
        for name, class_, value in (
            ("epochs", FieldClass.TRAIN, 1.5),
            ("learningRate", FieldClass.TRAIN, 0.001),
            ("globalBatchSize", FieldClass.TRAIN, 64),
            ("microBatchSize", FieldClass.OPERATIONAL, 2),
            ("maxLength", FieldClass.TRAIN, 512),
            ("packing", FieldClass.TRAIN, False),
            ("warmupSteps", FieldClass.TRAIN, 10),
            ("scheduler", FieldClass.TRAIN, "linear"),
            ("weightDecay", FieldClass.TRAIN, 0.1),
            ("maxGradNorm", FieldClass.TRAIN, 0.5),
            ("seed", FieldClass.TRAIN, 7),
        )
    },
}


def classes(model: type[ApiModel], path: str = "") -> Iterator[tuple[str, list[FieldClass]]]:
    for name, info in model.model_fields.items():
        where = f"{path}{info.alias or name}"
        marks = [mark for mark in info.metadata if isinstance(mark, FieldClass)]
        inner = info.annotation
        if not marks and isinstance(inner, type) and issubclass(inner, ApiModel):
            yield from classes(inner, f"{where}.")
        else:
            yield where, marks


def test_every_field_has_exactly_one_class_and_a_row_in_this_table() -> None:
    found = dict(classes(FineTuneJobSpec))
    assert {where: marks for where, marks in found.items() if len(marks) != 1} == {}
    assert {where: marks[0] for where, marks in found.items()} == {where: row[0] for where, row in CHANGES.items()}


@pytest.mark.parametrize("where", CHANGES)
def test_a_change_of_a_field_is_a_change_of_the_key_as_its_class_says(where: str) -> None:
    class_, change = CHANGES[where]
    assert (train_fields(**change) != {}) is (class_ is FieldClass.TRAIN)
    resolves_again = spec_key(job(**change)) != spec_key(job())
    assert resolves_again is (class_ in (FieldClass.TRAIN, FieldClass.INPUT))


def test_defaults_written_out_change_nothing() -> None:
    stored = job(
        method="SFT",
        adapter={"type": "LoRA", "rank": 16, "alpha": 32.0, "dropout": 0, "targetModules": ["all-linear"]},
        hyperparameters={"epochs": 3.0, "maxLength": "Auto", "warmupSteps": 0.03, "scheduler": "cosine", "seed": 0},
        baseModel={"huggingFace": {"repo": "org/model", "revision": "main"}},
    )
    assert stored.spec.train_fields() == {}
    assert spec_key(stored) == spec_key(job())


def test_a_mended_secret_is_no_other_run() -> None:
    model = {"repo": "org/model", "tokenSecretRef": {"name": "hf", "key": "token"}}
    assert spec_key(job(baseModel={"huggingFace": model})) == spec_key(job())


def test_whole_numbers_and_fractions_of_the_same_value_are_the_same_run() -> None:
    assert train_fields(adapter={"alpha": 64}) == train_fields(adapter={"alpha": 64.0})
    one = json.dumps(train_fields(hyperparameters={"epochs": 5}))
    assert one == json.dumps(train_fields(hyperparameters={"epochs": 5.0}))
