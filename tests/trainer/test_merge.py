"""adapterMode: Merged: one model of a base and an adapter, made once, found again, refused where it would be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_contract.base import StoredReference
from finetune_contract.exporting import ExportResult, MergePlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_store.manifests import read_manifest
from finetune_trainer.export.merge import main, merge
from tests.trainer.exports import Exports, job, trained

__all__ = ["job", "trained"]


def plan_of(made: Exports, base: StoredReference | None = None) -> MergePlan:
    artifact = StoredReference(digest=made.artifact.digest, uri=made.artifact.uri)
    return MergePlan(
        name="support",
        namespace="team-a",
        base=base or made.artifact.base,
        artifact=artifact,
        claim=made.training.claim,
    )


def test_a_pair_is_merged_in_sixteen_bits_once(job: Exports, tmp_path: Path) -> None:
    plan = plan_of(job)
    (tmp_path / "plan.json").write_text(plan.to_json())
    options = {"plan": "plan.json", "scratch": "", "termination-log": "log"}
    arguments = [f"--{name}={tmp_path / value}" for name, value in options.items()]
    assert main([*arguments, f"--store={job.store.root}"]) == 0
    first = ExportResult.model_validate_json((tmp_path / "log").read_text())
    weights = load_file(job.directory(first) / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert first.difference is not None
    assert first.difference < 0.002
    assert read_manifest(job.directory(first)).lineage == {"artifact": job.artifact.digest, "base": plan.base.digest}
    again = merge(plan, job.store.root)
    assert (again.reused, again.digest, again.difference) == (True, first.digest, None)


def test_an_export_of_the_job_is_served_as_it_is(job: Exports) -> None:
    made = job.make(type="MergedModel")
    found = merge(plan_of(job), job.store.root)
    assert (found.reused, found.digest, found.uri) == (True, made.digest, made.uri)


def another_base(made: Exports, **config: Any) -> StoredReference:
    """The same base with another digest."""
    with made.store.workspace(StoredKind.MODEL) as work:
        for file in made.store.path(made.artifact.base).iterdir():
            if file.name != "manifest.json":
                (work / file.name).write_bytes(file.read_bytes())
        said = json.loads((work / "config.json").read_bytes())
        (work / "config.json").write_text(json.dumps({**said, "note": "another", **config}))
        return made.store.publish(StoredKind.MODEL, work, {})


def test_an_export_on_another_base_is_not_taken(job: Exports) -> None:
    job.make(type="MergedModel")
    plan = plan_of(job, another_base(job))
    assert not merge(plan, job.store.root).reused
    assert merge(plan, job.store.root).reused


def test_a_quantised_base_is_refused_with_the_remedy(job: Exports) -> None:
    base = another_base(job, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(FineTuneError, match="use adapterMode: Static") as caught:
        merge(plan_of(job, base), job.store.root)
    assert caught.value.reason is FailureReason.EXPORT_FAILED
