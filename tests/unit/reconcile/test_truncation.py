"""A job whose rows its Dataset has already counted as too long for it is refused before a training pod is made."""

from typing import Any

import pytest

from finetune_operator.settings import Settings
from tests.factories import Object, digest, make_job, ready_dataset, stage_result
from tests.unit.reconcile.world import World

KEY = "1" * 64


def counted(tokenizer: str = "b", **revision: Any) -> Object:
    """A Dataset of 10,000 train tokens, of which 1,024 cuts 3 % and 2,048 nothing; by default of the job's base."""
    dataset = ready_dataset()
    tokens = {"total": 10_000, "p50": 300, "p95": 900, "p99": 1200, "max": 1500, "supervised": 4000}
    cuts = [(512, 8, 2400), (1024, 2, 300), (2048, 0, 0)]
    dataset["status"]["revision"] |= {
        "tokenizer": digest(tokenizer),
        "splits": [{"name": "train", "rows": 9, "tokens": tokens}],
        "truncation": [
            {"maxLength": length, "rows": rows, "tokens": lost, "paddingShare": 0.1} for length, rows, lost in cuts
        ],
        **revision,
    }
    return dataset


def world(length: int | str, dataset: Object | None = None, **spec: Any) -> World:
    job = make_job(**{"hyperparameters": {"maxLength": length}, **spec})
    here = World(job, dataset or counted(), settings=Settings(retry_seconds=0))
    here.settle()
    here.end(here.newest("stage"), stage_result(KEY).to_json())
    here.settle()
    return here


def test_the_refusal_has_figures_and_a_remedy_and_is_told_once() -> None:
    here = world(1024)
    assert here.jobs("train") == []
    says = here.says("Stalled")
    assert says.startswith(
        "True DataTruncated: spec.hyperparameters.maxLength: 1024 tokens would cut 300 of 10000 tokens (3.0%) in 2 rows"
    )
    assert "limits.truncatedShare allows 1.0%" in says
    assert "Raise hyperparameters.maxLength, or allow the loss with limits.truncatedShare." in says
    assert here.says("Running").startswith("False DataTruncated")
    assert here.status["phase"] == "Failed"
    here.edit(retries={"limit": 1})
    here.settle()
    assert here.jobs("train") == []
    assert [event.reason for event in here.events if event.type == "Warning"] == ["DataTruncated"]


@pytest.mark.parametrize(
    "mended",
    [{"hyperparameters": {"maxLength": 2048}}, {"limits": {"truncatedShare": 0.03}}],
    ids=["a longer maxLength", "a loss that is allowed"],
)
def test_an_edit_lets_it_go_on(mended: Object) -> None:
    here = world(1024)
    here.edit(**mended)
    here.settle()
    if not here.jobs("train"):  # another maxLength is another run
        here.end(here.newest("stage"), stage_result("2" * 64).to_json())
        here.settle()
    assert here.jobs("train")


def test_between_two_lengths_the_longer_one_is_the_least_that_is_lost() -> None:
    here = world(700)
    assert "would cut at least 300 of 10000 tokens (3.0%) in at least 2 rows" in here.says("Stalled")
    # 2,048 tokens cut nothing, so nobody knows what 1,500 would.
    assert world(1500).jobs("train")


@pytest.mark.parametrize(
    ("length", "dataset", "spec"),
    [
        (1024, counted(tokenizer="c"), {}),
        (1024, ready_dataset(), {}),
        (1024, counted(splits="of another release"), {}),
        ("Auto", counted(), {}),
        (512, counted(format="Text"), {"method": "CPT"}),
        (512, counted(format="Preference"), {"method": "DPO"}),
        (4096, counted(), {}),
    ],
    ids=[
        "another base's tokenizer", "nothing was counted", "another release's words", "Auto finds a length that fits",
        "text is split", "pairs are counted otherwise", "longer than any row",
    ],
)  # fmt: skip
def test_what_is_not_known_for_certain_is_left_to_the_trainer(length: Any, dataset: Object, spec: Object) -> None:
    assert world(length, dataset, **spec).jobs("train")


def test_a_dataset_that_has_moved_on_says_nothing_of_the_runs_rows() -> None:
    here = world(1024)
    here.others = {
        name: counted(digest=digest("e")) if name.kind == "Dataset" else other for name, other in here.others.items()
    }
    here.settle()
    assert here.jobs("train")
