"""Packed objects come back as they were, and small."""

import json
from typing import Any

import pytest

from finetune_operator.packing import pack, unpack
from tests.factories import finished_job, ready_dataset


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(finished_job(), id="a FineTuneJob"),
        pytest.param(ready_dataset(), id="a Dataset"),
        pytest.param({}, id="nothing"),
        pytest.param({"text": "Grüße, 世界 \U0001f680\u0000", "numbers": [1, 2.5, -3e300, True, None]}, id="any JSON"),
        pytest.param({"message": "x" * 200_000}, id="large"),
    ],
)
def test_round_trip(value: Any) -> None:
    assert unpack(pack(value)) == value


def test_each_unpacking_is_a_copy() -> None:
    packed = pack({"a": [1]})
    unpack(packed)["a"].append(2)
    assert unpack(packed) == {"a": [1]}


def test_objects_take_a_third_of_their_text() -> None:
    job = finished_job()
    assert len(pack(job)) < len(json.dumps(job)) / 3
