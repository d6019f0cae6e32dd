import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.train import surroundings


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), (None, 8), ("nonsense", 8)],
    ids=str,
)
def test_threads_follow_the_containers_limit(
    limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(surroundings, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert surroundings.available_cpus() == expected


def test_what_is_set_already_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "3"})
    surroundings.prepare_environment(tmp_path)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["HF_HOME"] == str(tmp_path / "huggingface")


def test_training_does_not_import_what_it_does_not_use() -> None:
    """Each of these takes seconds, and every pod would wait for them before its first step."""
    code = (
        "import sys; from pathlib import Path; from finetune_trainer.train.surroundings import prepare_environment\n"
        "prepare_environment(Path('/tmp')); import finetune_trainer.train.recipe\n"
        "print(sorted({'wandb', 'mlflow', 'sklearn', 'lm_eval'} & {name for name in sys.modules if sys.modules[name]}))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
