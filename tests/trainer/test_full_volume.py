"""A volume that fills up in the middle of a save: a name, no half checkpoint, no half artifact, and a way on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.failure import FailureReason, policy_of
from finetune_store.checkpoints import Checkpoints
from tests.trainer.conftest import Workshop
from tests.trainer.pods import Pod
from tests.trainer.runs import run

ROOM = 4 * 2**20
"""Bytes that are free when training begins: two checkpoints of the tiny model, and a part of a third."""


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0


@pytest.fixture
def filling(origin: Workshop, tmp_path: Path) -> Iterator[Workshop]:
    """A store on a tmpfs that has little room."""
    root = tmp_path / "volume"
    root.mkdir()
    size = sum(file.stat().st_size for file in origin.store.root.rglob("*") if file.is_file()) + ROOM
    if os.getuid() != 0 or not mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)):
        pytest.skip("mounting a small tmpfs needs root")
    yield origin.copied(root / "store")
    subprocess.run(["umount", root], check=True)


def test_a_full_volume_in_the_middle_of_a_save_is_named_and_loses_nothing(filling: Workshop) -> None:
    plan = filling.text_plan(checkpoints={"interval_steps": 1, "keep": 10})
    pod = Pod(filling.store, plan, "full")
    assert pod.exit_code() == policy_of(FailureReason.STORAGE_FULL).exit_code
    failure = pod.result().failure
    assert failure is not None
    assert failure.reason is FailureReason.STORAGE_FULL
    newest = Checkpoints(filling.store, plan.run_key, "reader", 10).newest()
    assert newest is not None, "what was sealed before still verifies"
    step = newest[0]
    assert step == pod.result().checkpoint_step
    assert list((filling.store.root / "artifacts").glob("*")) == []
    assert mount("-o", "remount,size=256m", str(filling.store.root.parent))
    again = run(filling.store, plan.model_copy(update={"attempt": 2}), "enlarged")
    assert again.resumed_from_step == step
    assert again.artifact is not None
