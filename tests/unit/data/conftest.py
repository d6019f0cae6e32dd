"""A dataset pod on directories of this machine."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import settings

from finetune_contract.datasets import DatasetPlan, DatasetResult, DatasetSource, MixturePart
from finetune_contract.failure import FailureReason, policy_of
from finetune_store.store import Store
from finetune_trainer.data.prepare import main

# A busy machine is no reason to fail.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

WORDS = [letter * 3 for letter in "abcdefghijklmnop"]
EVERYTHING = DatasetSource(files="*")


def make_text(number: int) -> str:
    """Twelve words that share few runs with another number's."""
    return " ".join(f"{WORDS[(number * 7 + place * (number % 13 + 1)) % 16]}{number}" for place in range(12))


def jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class Pod:
    """Runs `python -m finetune_trainer prepare`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("store", "source", "scratch"):
            (root / name).mkdir()
        self.store = Store(root / "store", "artifacts")
        self.code = -1

    def write(self, name: str, content: str | bytes) -> None:
        path = self.root / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def prepare(self, source: DatasetSource | str = EVERYTHING, **settings: Any) -> DatasetResult:
        """Prepare files (by default all), or inline JSON lines."""
        source = DatasetSource(inline=source) if isinstance(source, str) else source
        plan = DatasetPlan(name="tickets", namespace="team-a", source=source, claim="artifacts", **settings)
        (self.root / "plan.json").write_text(plan.to_json())
        options = {"plan": "plan.json", "store": "store", "source": "source", "scratch": "scratch"}
        arguments = [f"--{option}={self.root / name}" for option, name in options.items()]
        self.code = main([*arguments, f"--termination-log={self.root / 'log'}"])
        assert (self.root / "log").stat().st_size <= 4096
        return DatasetResult.from_message((self.root / "log").read_text())

    def path(self, result: DatasetResult) -> Path:
        assert result.failure is None, result.failure
        assert result.revision is not None
        return self.store.verify(result.revision)

    def rows(self, result: DatasetResult, split: str = "train") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = parquet.read_table(self.path(result) / f"{split}.parquet").to_pylist()
        return rows

    def dropped(self, result: DatasetResult) -> list[dict[str, Any]]:
        path = self.path(result) / "dropped.jsonl.zst"
        text = pyarrow.CompressedInputStream(str(path), "zstd").read().decode()
        return [json.loads(line) for line in text.splitlines()]

    def fails(self, result: DatasetResult, reason: FailureReason, *said: str) -> None:
        """The failure is named, and nothing was left in the store."""
        assert result.failure is not None
        assert (result.failure.reason, self.code) == (reason, policy_of(reason).exit_code), result.failure
        for words in said:
            assert words in result.failure.message
        assert result.revision is None
        assert not (self.root / "store/datasets").exists()
        assert not list((self.root / "store").glob(".work/*"))


def part(pod: Pod, name: str, rows: list[dict[str, Any]], weight: float | None = None, **plan: Any) -> MixturePart:
    """A revision, as a part of a mixture."""
    result = pod.prepare(jsonl(rows), **plan)
    assert result.revision is not None
    return MixturePart(name=name, revision=result.revision, weight=weight)


def mix(pod: Pod, *parts: MixturePart, **plan: Any) -> DatasetResult:
    return pod.prepare(DatasetSource(mixture=parts), **plan)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)
