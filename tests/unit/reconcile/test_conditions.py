from datetime import timedelta

from finetune_operator.reconcile.conditions import ConditionSet
from tests.factories import NOW


def test_the_time_of_a_condition_is_that_of_its_status() -> None:
    first = ConditionSet((), 1, NOW)
    first.set("Ready", False, "A")
    later = ConditionSet(first.to_list(), 2, NOW + timedelta(minutes=1))
    later.set("Ready", False, "B", "other words")
    (kept,) = later.to_list()
    assert (kept.last_transition_time, kept.reason, kept.observed_generation) == (NOW, "B", 2)
    later.set("Ready", True, "C")
    assert later.to_list()[0].last_transition_time == NOW + timedelta(minutes=1)


def test_what_is_said_twice_in_a_pass_counts_as_said_once() -> None:
    first = ConditionSet((), 1, NOW)
    first.stalled("A", "")
    later = ConditionSet(first.to_list(), 1, NOW + timedelta(minutes=1))
    later.ready("B")
    later.waiting("C")
    later.stalled("A", "")
    assert later.to_list() == first.to_list()


def test_a_resource_is_ready_or_on_its_way_or_stalled() -> None:
    conditions = ConditionSet((), 1, NOW)
    conditions.waiting("A")
    assert [item.type for item in conditions.to_list()] == ["Ready", "Reconciling"]
    conditions.stalled("B", "")
    assert [item.type for item in conditions.to_list()] == ["Ready", "Stalled"]
    conditions.ready("C")
    assert [item.type for item in conditions.to_list()] == ["Ready"]


def test_a_long_message_is_cut_and_an_unknown_status_can_be_said() -> None:
    conditions = ConditionSet((), 1, NOW)
    conditions.set("Running", None, "Unknown", "é" * 5000)
    (found,) = conditions.to_list()
    assert len(found.message) == 2048
    assert found.status.value == "Unknown"
