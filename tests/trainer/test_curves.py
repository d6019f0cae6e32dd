"""The picture of a run's losses."""

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from finetune_trainer.evaluate.curves import loss_curves


def history(last: int, *validation: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"step": step, "loss": 2 - step / last} for step in range(last + 1)]
    return found + [{"step": step, "eval_loss": 1.5} for step in validation]


@pytest.mark.parametrize(
    ("last", "numbers"),
    [
        (1, ["0", "step 1"]),
        (10, ["0", "5", "step 10"]),
        (101, ["0", "50", "step 101"]),
        (546, ["0", "200", "400", "step 546"]),
        (4000, ["0", "1,000", "2,000", "3,000", "step 4,000"]),
    ],
)
def test_steps_are_round_numbers_and_the_last_one(last: int, numbers: list[str]) -> None:
    texts = ElementTree.fromstring(loss_curves(history(last))).iter("text")
    assert [each.text for each in texts if each.get("y") == "246"] == numbers


def test_a_step_that_was_done_twice_counts_as_done_last_and_what_is_no_number_is_left_out() -> None:
    entries = [
        {"step": 1, "loss": 9.0},
        {"step": 2, "loss": math.nan},
        {"step": 1, "loss": 3.0},
        {"step": 4, "loss": 1.0},
    ]
    svg = loss_curves(entries)
    assert re.findall(r"<title>(.*?)</title>", svg) == ["training loss 3 at step 1", "training loss 1 at step 4"]


def test_long_curves_are_thinned_and_end_where_they_end() -> None:
    (line,) = re.findall(r'<polyline class="training" points="([^"]*)"', loss_curves(history(5000)))
    points = [float(each.split(",")[0]) for each in line.split()]
    assert len(points) <= 402
    assert points[-1] == 748.0


def test_one_loss_is_no_curve() -> None:
    assert loss_curves([{"step": 1, "loss": 2.0}]) == loss_curves([]) == ""
    assert "validation" not in loss_curves(history(3))
    assert '<polyline class="validation"' in loss_curves(history(3, 1, 3))
