"""What is made of an artifact, on a model that llama.cpp's converter can read."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_contract.base import StoredReference
from finetune_contract.exporting import ExportResult
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_store.manifests import read_manifest
from finetune_trainer.export.main import export
from finetune_trainer.export.merged import Difference
from tests.trainer import hub, runs, tiny
from tests.trainer.exports import CONVERTER, IMAGE, Exports, job, trained

needs_converter = pytest.mark.skipif(
    not CONVERTER.is_dir(), reason="sh trainer-image/gguf-converter.sh PYTHON .venv/gguf-converter brings the converter"
)

__all__ = ["job", "trained"]


def test_a_merged_model_is_in_sixteen_bits_and_answers_like_base_and_adapter(job: Exports) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = job.make(type="MergedModel")
    directory = job.directory(made)
    weights = load_file(directory / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert made.difference is not None
    assert made.difference < 0.002
    base = AutoModelForCausalLM.from_pretrained(job.store.path(job.training.base))
    tuned = PeftModel.from_pretrained(base, str(runs.directory_of(job.store, job.result)))
    merged = AutoModelForCausalLM.from_pretrained(directory)
    ids = AutoTokenizer.from_pretrained(directory)("there was the otter again", return_tensors="pt").input_ids
    with torch.inference_mode():
        difference = (tuned(ids).logits.float() - merged(ids).logits.float()).abs()
    assert float(difference.max()) < 0.1


def test_an_export_is_never_made_twice_and_has_the_same_digest_where_it_is(job: Exports) -> None:
    first, again = job.make(type="MergedModel"), job.make(type="MergedModel")
    assert (first.reused, again.reused) == (False, True)
    assert (again.digest, again.uri, again.bytes) == (first.digest, first.uri, first.bytes)
    shutil.rmtree(job.directory(first))
    anew = job.make(type="MergedModel")
    assert (anew.reused, anew.digest) == (False, first.digest)


def test_a_whole_model_is_its_own_merged_model(job: Exports) -> None:
    plan = job.plan(type="MergedModel")
    whole = plan.model_copy(update={"artifact": plan.artifact.model_copy(update={"type": "Model"})})
    assert export(whole, job.store.root).digest == job.artifact.digest


def test_an_export_says_where_it_came_from(job: Exports) -> None:
    lineage = read_manifest(job.directory(job.make(type="MergedModel"))).lineage
    assert lineage["artifact"] == job.artifact.digest
    assert lineage["base"] == job.training.base.digest
    assert lineage["dataset"] == job.training.dataset.digest
    assert lineage["runKey"] == "a1"


@pytest.mark.parametrize(
    ("merged", "base", "is_kept"),
    [(0.0, 3.0, True), (0.04, 3.0, True), (0.06, 3.0, False), (0.0015, 0.0, True), (0.003, 0.004, False),
     (float("inf"), 3.0, False), (float("nan"), 3.0, False)],
    ids=["equal", "rounded", "far", "an adapter that does nothing", "its effect is lost", "infinite", "not a number"],
)  # fmt: skip
def test_a_merged_model_may_lose_little_of_what_the_adapter_does(merged: float, base: float, is_kept: bool) -> None:
    difference = Difference(merged=merged, base=base)
    if is_kept:
        difference.check("spec.exports")
        return
    with pytest.raises(FineTuneError) as caught:
        difference.check("spec.exports")
    assert caught.value.reason is FailureReason.EXPORT_FAILED


def test_a_merge_that_goes_wrong_leaves_nothing(job: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora import Linear

    monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, _: torch.zeros_like(layer.get_base_layer().weight))
    with pytest.raises(FineTuneError, match="differs by") as caught:
        job.make(type="MergedModel")
    assert caught.value.reason is FailureReason.EXPORT_FAILED
    assert not (job.store.root / "exports").exists()


# --- GGUF


@needs_converter
@pytest.mark.parametrize(("quantization", "tolerance"), [("F32", 0.0), ("F16", 1e-3), ("BF16", 0.0), ("Q8_0", 5e-3)])
def test_a_gguf_file_holds_the_merged_models_weights(job: Exports, quantization: str, tolerance: float) -> None:
    merged = load_file(job.directory(job.make(type="MergedModel")) / "model.safetensors")
    made = job.make(type="GGUF", quantization=quantization)
    (file,) = job.directory(made).glob("*.gguf")
    assert file.name == f"tiny-{quantization}.gguf"
    tensors, fields = read_gguf(file)
    assert fields["general.name"] == "tiny"
    assert fields["general.architecture"] == "llama"
    assert len(tensors) == len(merged)
    for ours, theirs in {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    }.items():
        expected = merged[ours].float()
        assert float((tensors[theirs] - expected).abs().max()) <= tolerance * float(expected.abs().max()), ours


@needs_converter
def test_without_a_merged_export_a_gguf_file_is_the_same(job: Exports, tmp_path: Path) -> None:
    alone = job.make(type="GGUF", quantization="Q8_0")
    assert not list((job.store.root / ".work").iterdir())
    job.make(type="MergedModel")
    shutil.rmtree(job.directory(alone))
    assert job.make(type="GGUF", quantization="Q8_0").digest == alone.digest


@needs_converter
def test_a_gguf_adapter_holds_the_adapters_weights(job: Exports) -> None:
    (file,) = job.directory(job.make(type="GGUFAdapter", quantization="F32")).glob("*.gguf")
    tensors, fields = read_gguf(file)
    assert fields["general.type"] == "adapter"
    assert fields["adapter.lora.alpha"] == 8.0
    expected = runs.weights_of(job.store, job.result)
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    assert torch.equal(tensors["blk.1.ffn_down.weight.lora_a"], expected[name])
    assert len(tensors) == len(expected)


@needs_converter
def test_what_llama_cpp_does_not_know_is_said_by_name(job: Exports) -> None:
    from finetune_contract.exporting import Quantization
    from finetune_trainer.export.gguf import write_gguf

    directory = job.store.root.parent / "unknown"
    tiny.build_tokenizer(directory)
    tiny.build_model(directory)
    with pytest.raises(FineTuneError, match="BPE pre-tokenizer was not recognized") as caught:
        write_gguf(directory, Quantization.F16, "tiny", directory / "x.gguf")
    assert caught.value.reason is FailureReason.EXPORT_FAILED


@pytest.mark.parametrize("place", ["config.json", "modeling_evil.py"])
def test_the_converter_is_not_started_on_a_model_with_code(job: Exports, place: str) -> None:
    from finetune_contract.exporting import Quantization
    from finetune_trainer.export.gguf import write_gguf

    directory = job.store.root.parent / "code"
    directory.mkdir()
    (directory / place).write_text('{"auto_map": {"AutoConfig": "evil.Config"}}')
    with pytest.raises(FineTuneError, match="never run"):
        write_gguf(directory, Quantization.F16, "tiny", directory / "x.gguf")


def read_gguf(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors as fp32 and fields, by llama.cpp's own reader."""
    sys.path.insert(0, str(CONVERTER / "gguf-py"))
    try:
        import gguf
    finally:
        sys.path.pop(0)
    reader = gguf.GGUFReader(file)
    tensors = {
        tensor.name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in reader.tensors
    }
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


# --- the Hub


def push(job: Exports, there: hub.Hub, tmp_path: Path, token: str = "t0ken", **target: Any) -> tuple[int, ExportResult]:
    """Push in a process of its own: the Hub's client reads its settings once."""
    plan = job.plan(type="Hub", hub={"repo": "org/tuned", **target})
    (tmp_path / "plan.json").write_text(plan.to_json())
    log = tmp_path / "log"
    command = [sys.executable, "-m", "finetune_trainer", "export", f"--plan={tmp_path / 'plan.json'}"]
    command += [f"--store={job.store.root}", f"--scratch={tmp_path}", f"--termination-log={log}"]
    environment = {**os.environ, "HF_ENDPOINT": there.url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert log.is_file(), done.stderr
    return done.returncode, ExportResult.model_validate_json(log.read_bytes())


def test_a_push_makes_repository_and_branch_and_a_second_one_no_commit(job: Exports, tmp_path: Path) -> None:
    with hub.serving("t0ken") as there:
        code, made = push(job, there, tmp_path, revision="v1")
        assert code == 0, made.failure
        repository = there.repositories["org/tuned"]
        assert repository.private
        assert repository.branches["main"] == [{}]
        assert made.uri == f"{there.url}/org/tuned/tree/{repository.head('v1')}"
        assert made.digest == job.artifact.digest
        source = runs.directory_of(job.store, job.result)
        expected = {path.name: path.read_bytes() for path in source.iterdir() if path.name != "manifest.json"}
        assert there.files("org/tuned", "v1") == expected
        code, again = push(job, there, tmp_path, revision="v1")
        assert (code, again.uri) == (0, made.uri)
        assert len(repository.branches["v1"]) == 2


def test_the_merged_model_can_be_pushed(job: Exports, tmp_path: Path) -> None:
    merged = job.make(type="MergedModel")
    with hub.serving("t0ken") as there:
        code, made = push(job, there, tmp_path, content="MergedModel", private=False)
        assert (code, made.digest) == (0, merged.digest)
        assert not there.repositories["org/tuned"].private
        assert {"model.safetensors", "config.json", "README.md", "tokenizer.json"} <= set(there.files("org/tuned"))


def test_a_refused_push_and_an_unreachable_hub_have_names(job: Exports, tmp_path: Path) -> None:
    with hub.serving("t0ken") as there:
        code, made = push(job, there, tmp_path, token="wrong")
        assert made.failure is not None
        assert (code, made.failure.reason) == (87, FailureReason.EXPORT_DENIED)
        assert made.failure.message.startswith(f"spec.exports: org/tuned@main at {there.url}: refused (401)")
    _, made = push(job, there, tmp_path)
    assert made.failure is not None
    assert made.failure.reason is FailureReason.SOURCE_UNAVAILABLE


# --- the card


def test_every_artifact_has_a_card_with_its_lineage(job: Exports) -> None:
    from huggingface_hub import ModelCard

    directory = runs.directory_of(job.store, job.result)
    card = ModelCard.load(directory / "README.md")
    assert card.data.base_model == "org/tiny"
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "peft"
    assert {result.metric_type for result in card.data.eval_results} == {"EvalLoss", "ExactMatch"}
    for fact in (job.training.base.digest, job.training.dataset.digest, "c0ffee", IMAGE, "a1", '"learningRate"'[1:-1]):
        assert fact in card.text, fact
    assert re.search(r"\| EvalLoss \| Tuned \| [\d.]+ \| [\d.]+ to [\d.]+ \| 24 \|", card.text)
    assert re.search(r"\| wall time \| \d+ s \|", card.text)
    assert str(job.store.root) not in card.text


def test_an_exports_card_says_what_all_attempts_took(job: Exports) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(job.directory(job.make(type="MergedModel")) / "README.md")
    assert card.data.library_name == "transformers"
    assert "560 GPU-seconds" in card.text
    assert job.artifact.digest in card.text
    assert "nats per token on the probe prompts" in card.text


def test_a_card_does_not_change_the_name_of_what_it_tells_of(job: Exports) -> None:
    directory = runs.directory_of(job.store, job.result)
    manifest = read_manifest(directory)
    assert "README.md" in {entry.path for entry in manifest.files}
    card = directory / "README.md"
    card.write_text(card.read_text() + "\nchanged\n")
    with pytest.raises(FineTuneError, match=r"README.md"):
        job.store.verify(StoredReference(digest=job.artifact.digest, uri=job.artifact.uri))
    with job.store.workspace(StoredKind.ARTIFACT) as work:
        for path in directory.iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, work)
        assert job.store.publish(StoredKind.ARTIFACT, work, {}).digest == job.artifact.digest
