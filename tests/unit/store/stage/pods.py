"""A stage pod as a process would be: its store, its claim, its plan and its result."""

import json
from pathlib import Path

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, policy_of
from finetune_contract.manifest import StoredKind
from finetune_contract.results import StageResult
from finetune_contract.staging import BaseSource, RunIngredients, StagePlan
from finetune_store.__main__ import main
from finetune_store.store import Store
from tests.unit.store.test_adapterfiles import header, layers

MODEL = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
    "chat_template.jinja": "{{ messages }}",
}

UNNEEDED = {
    "README.md": "# Tiny",
    "pytorch_model.bin": "pickle",
    "original/model.safetensors": "again",
    "modeling_tiny.py": "import os",
    "consolidated.safetensors": "again",
}

DATASET = "sha256:" + "d" * 64


class Pod:
    """Runs `python -m finetune_store stage` on directories of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("store", "source", "scratch"):
            (root / name).mkdir()
        self.store = Store(root / "store", "artifacts")

    def stage(
        self, source: BaseSource, run: RunIngredients | None = None, *adapters: StoredReference
    ) -> tuple[int, StageResult]:
        plan = StagePlan(name="tiny", namespace="team-a", source=source, run=run, adapters=adapters, claim="artifacts")
        (self.root / "plan.json").write_text(plan.to_json())
        return self.run()

    def run(self) -> tuple[int, StageResult]:
        flags = {"plan": "plan.json", "store": "store", "source": "source", "scratch": "scratch"}
        arguments = [f"--{flag}={self.root / name}" for flag, name in flags.items()]
        code = main(["stage", *arguments, f"--termination-log={self.root / 'log'}"])
        assert (self.root / "log").stat().st_size <= 4096
        return code, StageResult.from_message((self.root / "log").read_text())

    def staged_files(self, result: StageResult) -> dict[str, str]:
        assert result.base is not None
        path = self.store.verify(result.base)
        files = (file for file in path.rglob("*") if file.is_file() and file.name != "manifest.json")
        return {file.relative_to(path).as_posix(): file.read_text() for file in files}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def fails(answer: tuple[int, StageResult], reason: FailureReason, *said: str) -> None:
    code, result = answer
    assert result.failure is not None
    assert (result.failure.reason, code) == (reason, policy_of(reason).exit_code)
    assert result.base is None
    for words in said:
        assert words in result.failure.message


def put_adapter(pod: Pod, rank: int = 8, base: str | None = None, **config: object) -> StoredReference:
    """An adapter that somebody has put into the store."""
    with pod.store.workspace(StoredKind.ARTIFACT) as work:
        (work / "adapter_config.json").write_text(json.dumps({"r": rank, **config}))
        (work / "adapter_model.safetensors").write_bytes(header(layers(rank=rank)))
        return pod.store.publish(StoredKind.ARTIFACT, work, {"base": base} if base else {})
