"""What a real run leaves in the store, and what of it a collector takes."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_contract.collection import CollectionPlan, CollectionResult, prefixes_in
from finetune_store.collect import collect
from tests.trainer.conftest import Workshop
from tests.trainer.runs import reference_to, run

RUN = "3f9c1a" + "0" * 58
WEEK = timedelta(days=7)


def look(workshop: Workshop, live: set[str], after: timedelta) -> CollectionResult:
    now = datetime.now(UTC) + after
    plan = CollectionPlan(
        namespace="team",
        claim=workshop.store.claim,
        as_of=now,
        minimum_age_seconds=WEEK.total_seconds(),
        live=tuple(sorted(live)),
    )
    return collect(plan, workshop.store, clock=lambda: time.time() + after.total_seconds())


def checkpoints(workshop: Workshop) -> list[Path]:
    return list((workshop.store.root / "runs" / RUN).glob("checkpoints/*/checkpoint-*"))


def test_a_run_that_is_referred_to_keeps_everything_but_its_checkpoints(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = workshop.plan(run_key=RUN, hyperparameters={"epochs": 0.5})
    first = run(workshop.store, plan)
    artifact = reference_to(first)
    assert checkpoints(workshop)
    live = prefixes_in(RUN)  # nothing but the run itself: what it was made from follows
    for days in range(0, 15, 3):
        result = look(workshop, live, timedelta(days=days))
    assert result.in_use == 4
    assert checkpoints(workshop) == []
    for reference in (plan.base, plan.dataset, artifact):
        workshop.store.verify(reference)
    assert not workshop.store.holds(workshop.text)  # nothing refers to the other dataset
    monkeypatch.setattr("finetune_trainer.train.recipe.fit", None)
    second = run(workshop.store, plan.model_copy(update={"attempt": 2}), uid="pod-b")
    assert (second.reused, second.artifact) == (True, first.artifact)


def test_a_run_that_was_interrupted_is_resumed_after_any_time(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = workshop.plan(run_key=RUN, hyperparameters={"epochs": 0.5})

    def died(*_: object) -> None:
        raise RuntimeError("the pod died while it evaluated")

    with monkeypatch.context() as patch:
        patch.setattr("finetune_trainer.train.recipe.evaluate", died)
        with pytest.raises(RuntimeError):
            run(workshop.store, plan)
    live = prefixes_in(f"{RUN} {plan.base.digest} {plan.dataset.digest}")
    for days in range(0, 30, 3):
        look(workshop, live, timedelta(days=days))
    assert run(workshop.store, plan, uid="pod-b").resumed_from_step == 6
