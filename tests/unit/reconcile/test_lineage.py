"""Jobs that tune each other's results."""

import pytest

from tests import factories
from tests.factories import Object
from tests.unit.reconcile.world import World

DATASET = factories.ready_dataset()


def tuning(name: str, upstream: str, **status: object) -> Object:
    job = factories.make_job(name, baseModel={"fineTuneJob": {"name": upstream}})
    return {**job, "status": status} if status else job


@pytest.mark.parametrize(
    ("others", "circle"),
    [
        pytest.param([tuning("b", "a")], "a -> b -> a", id="two"),
        pytest.param([tuning("b", "c"), tuning("c", "a")], "a -> b -> c -> a", id="three"),
        pytest.param([tuning("b", "c"), tuning("c", "b")], "", id="a circle of others"),
        pytest.param([tuning("b", "c")], "", id="a chain with a missing end"),
        pytest.param([tuning("b", "c"), factories.make_job("c")], "", id="a chain"),
    ],
)
def test_a_circle_is_named(others: list[Object], circle: str) -> None:
    here = World(tuning("a", "b"), DATASET, *others)
    here.settle()
    expected = "ReferenceCycle" if circle else "BaseNotReady"
    assert here.says("Staged").startswith(f"False {expected}: ")
    assert circle in here.says("Ready")
    assert (here.condition("Stalled") is not None) == bool(circle)


def test_a_circle_that_somebody_opens_is_no_circle() -> None:
    here = World(tuning("a", "b"), DATASET, tuning("b", "a"))
    here.settle()
    here.others.update({name: factories.make_job("b") for name in here.others if name.name == "b"})
    here.settle()
    assert here.says("Ready").startswith("False BaseNotReady: ")
    assert here.condition("Stalled") is None


def test_an_artifact_ends_a_circle() -> None:
    """The job above was trained before somebody pointed it at this one: its result is there to be tuned."""
    model = {
        "artifact": {"digest": factories.digest("b"), "uri": "pvc://finetune-artifacts/artifacts/b", "type": "Model"}
    }
    here = World(tuning("a", "b"), DATASET, tuning("b", "a", **model))
    here.settle()
    assert here.jobs("stage")
