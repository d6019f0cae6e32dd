"""What a training would need, found on fake tensors; refusals before a GPU is asked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.preflight import Accelerator, Fit, PreflightPlan, PreflightResult
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.runs import run

GIB = 2**30
H100 = Accelerator(name="H100", memory_bytes=80 * GIB, flops=400e12)
L4 = Accelerator(name="L4", memory_bytes=22 * GIB)

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
"""meta-llama/Llama-3.1-8B, with a shorter context."""


def check(workshop: Workshop, plan: TrainingPlan, **changes: Any) -> PreflightResult:
    from finetune_trainer.preflight.check import check

    return check(PreflightPlan(training=plan, **changes), workshop.store.root)


def publish_shape(store: Store, **config: Any) -> StoredReference:
    """A base model of which only the configuration and the tokenizer are there."""
    from transformers import LlamaConfig

    with store.workspace(StoredKind.MODEL) as directory:
        tiny.build_tokenizer(directory)
        LlamaConfig(architectures=["LlamaForCausalLM"], **config).save_pretrained(str(directory))
        return store.publish(StoredKind.MODEL, directory, {})


@pytest.fixture
def large(workshop: Workshop) -> Workshop:
    return workshop._replace(base=publish_shape(workshop.store, **LLAMA_8B))


def long_plan(workshop: Workshop, **changes: Any) -> TrainingPlan:
    hyperparameters = {"max_length": 4096, "packing": True, "epochs": 1, **changes.pop("hyperparameters", {})}
    adapter = {"rank": 16, "alpha": 32, "dropout": 0.0}
    return workshop.plan(**{"adapter": adapter, "hyperparameters": hyperparameters, **changes})


def test_an_adapter_of_an_8b_model_fits_an_80_gb_gpu(large: Workshop) -> None:
    found = check(large, long_plan(large), device=H100)
    assert found.verdict is Fit.FITS
    assert found.predicted_peak_bytes is not None
    assert 16 * GIB < found.predicted_peak_bytes < 0.92 * 80 * GIB
    assert found.micro_batch_size
    assert found.total_steps >= 1
    assert found.seconds is not None
    assert found.seconds > 0


def test_what_does_not_fit_is_told_three_ways_with_their_peaks(large: Workshop) -> None:
    found = check(large, long_plan(large, adapter=None), device=L4, others=(H100,))
    assert found.verdict is Fit.DOES_NOT_FIT
    assert found.predicted_peak_bytes is not None
    assert found.predicted_peak_bytes > 100 * GIB
    assert [way.change for way in found.ways][:2] == ["spec.adapter.type: LoRA", "spec.adapter.type: QLoRA"]
    assert len(found.ways) <= 3
    assert all(way.predicted_peak_bytes < found.predicted_peak_bytes for way in found.ways)


def test_full_fine_tuning_may_be_divided_among_gpus(large: Workshop) -> None:
    found = check(large, long_plan(large, adapter=None), device=H100)
    changes = [way.change for way in found.ways]
    assert found.verdict is Fit.DOES_NOT_FIT
    assert changes[0] == "spec.adapter.type: LoRA"
    assert any(change.endswith("(FSDP)") for change in changes)


def test_more_tokens_and_more_weights_never_need_less(large: Workshop) -> None:
    def peak(length: int, **changes: Any) -> int:
        settings = {"max_length": length, "micro_batch_size": 1}
        found = check(large, long_plan(large, hyperparameters=settings, **changes)).predicted_peak_bytes
        assert found is not None
        return found

    assert peak(1024) < peak(4096) < peak(8192)
    assert peak(1024, adapter={"variant": "QLoRA", "rank": 16, "alpha": 32, "dropout": 0.0}) < peak(1024)
    assert peak(1024) < peak(1024, adapter={"rank": 256, "alpha": 32, "dropout": 0.0}) < peak(1024, adapter=None)


@pytest.mark.parametrize("adapter", [None, {"rank": 8, "alpha": 16, "dropout": 0.0}], ids=["full", "LoRA"])
@pytest.mark.parametrize("recomputes", [True, False])
def test_few_layers_tell_what_all_of_them_take(adapter: dict[str, Any] | None, recomputes: bool) -> None:
    from transformers import LlamaConfig

    from finetune_contract.training import LoraPlan
    from finetune_trainer.preflight.dryrun import Setting, rehearse, rehearse_whole

    config = LlamaConfig(**{**LLAMA_8B, "num_hidden_layers": 7, "hidden_size": 256, "intermediate_size": 896,
                            "num_attention_heads": 8, "vocab_size": 4096})  # fmt: skip
    setting = Setting(LoraPlan.model_validate(adapter) if adapter else None, recomputes=recomputes)
    assert rehearse(config, setting, 2048).at_most == pytest.approx(rehearse_whole(config, setting, 2048), rel=0.02)


def online(**changes: Any) -> dict[str, Any]:
    return {"rewards": [{"function": "Length", "max_tokens": 4}], "generations": 4, "max_completion_length": 512,
            **changes}  # fmt: skip


@pytest.fixture
def preferring(large: Workshop) -> Workshop:
    """Pairs of a few thousand tokens, for the 8B model."""
    pairs = [{"prompt": "one " * 2000, "chosen": "two " * 500, "rejected": "three " * 300}] * 32
    return large._replace(classification=tiny.publish_dataset(large.store, RowFormat.PREFERENCE, {"train": pairs}))


def peak_of(workshop: Workshop, method: str, adapter: dict[str, Any] | None, **changes: Any) -> int:
    dataset = changes.pop("dataset", workshop.classification)
    settings = {"micro_batch_size": 2, "global_batch_size": 16, "epochs": 1}
    plan = workshop.plan(method=method, dataset=dataset, adapter=adapter, hyperparameters=settings, **changes)
    found = check(workshop, plan, device=H100)
    assert found.verdict is not Fit.UNKNOWN
    assert found.predicted_peak_bytes is not None
    return found.predicted_peak_bytes


LORA = {"rank": 16, "alpha": 32, "dropout": 0.0}


def test_preferences_hold_what_a_pair_and_a_reference_take(preferring: Workshop) -> None:
    reward, kto, dpo = (peak_of(preferring, method, LORA) for method in ("Reward", "KTO", "DPO"))
    assert kto < dpo, "of KTO's rows one sequence has gradients, of DPO's both"
    assert reward < dpo, "a reward model has no head over the vocabulary"
    # With an adapter, the reference is the base without it; in full fine-tuning a second model in bf16.
    parameters, head = 8_030_261_248, 128_256 * 4096
    whole = [peak_of(preferring, method, None) for method in ("Reward", "DPO")]
    # A reward model has no head over the vocabulary: 16 bytes a weight with its gradient and states.
    assert whole[1] - whole[0] == pytest.approx(2 * parameters + 16 * head, rel=0.1)
    assert min(whole) > max(dpo, kto) + 80 * GIB


def test_answers_that_are_written_at_once_are_counted(large: Workshop) -> None:
    prompts = tiny.publish_dataset(
        large.store, RowFormat.PROMPTS, {"train": [{"prompt": "one " * 500, "answer": ""}] * 8}
    )
    few, many = (
        peak_of(large, "GRPO", LORA, dataset=prompts, online=online(max_completion_length=length))
        for length in (128, 6000)
    )
    assert many > few
    # Keys and values of 32 layers, 8 heads of 128 each, in bf16, for 16 answers.
    cache = 16 * 2 * 32 * 8 * 128 * 2 * 6000
    assert many > 15 * GIB + cache


def test_a_reward_model_takes_its_place(large: Workshop) -> None:
    prompts = tiny.publish_dataset(large.store, RowFormat.PROMPTS, {"train": [{"prompt": "one two", "answer": ""}] * 8})
    with large.store.workspace(StoredKind.ARTIFACT) as directory:
        from transformers import LlamaConfig

        LlamaConfig(architectures=["LlamaForSequenceClassification"], num_labels=1, **LLAMA_8B).save_pretrained(
            str(directory)
        )
        judge = large.store.publish(StoredKind.ARTIFACT, directory, {})
    alone, judged = (
        peak_of(large, "RLOO", LORA, dataset=prompts, online=online(rewards=rewards))
        for rewards in ([{"function": "Length", "max_tokens": 4}], [{"model": judge.model_dump()}])
    )
    assert judged - alone == pytest.approx(2 * 7.5e9, rel=0.01), "without a head, in bf16"


@pytest.mark.parametrize("method", ["ORPO", "SimPO"])
def test_what_is_not_predicted_is_said_so(method: str, preferring: Workshop) -> None:
    plan = preferring.plan(method=method, dataset=preferring.classification, adapter=LORA)
    found = check(preferring, plan, device=H100)
    assert found.verdict is Fit.UNKNOWN
    assert found.predicted_peak_bytes is None
    assert found.total_steps > 0


def test_steps_and_tokens_are_those_of_the_training(workshop: Workshop) -> None:
    for plan in (workshop.plan(), workshop.text_plan()):
        said, done = check(workshop, plan, on_gpu=False), run(workshop.store, plan.model_copy())
        assert (said.total_steps, said.tokens, said.truncated_tokens) == (
            done.total_steps, done.tokens, done.truncated_tokens,
        )  # fmt: skip
        assert said.verdict is Fit.UNKNOWN
        break


def test_a_sample_stands_for_very_many_rows(workshop: Workshop) -> None:
    from finetune_trainer.preflight.check import check as check_sample

    plan = PreflightPlan(training=workshop.plan())
    whole = check_sample(plan, workshop.store.root)
    part = check_sample(plan, workshop.store.root, sample=48)
    assert part.is_estimate
    assert not whole.is_estimate
    assert part.total_steps == whole.total_steps
    assert part.tokens == pytest.approx(whole.tokens, rel=0.1)


def refused(workshop: Workshop, plan: TrainingPlan) -> FineTuneError:
    with pytest.raises(FineTuneError) as caught:
        check(workshop, plan, device=H100)
    return caught.value


def test_target_modules_that_the_model_does_not_have(workshop: Workshop) -> None:
    adapter = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["query_proj"]}
    error = refused(workshop, workshop.plan(adapter=adapter))
    assert error.reason is FailureReason.INVALID_PLAN
    assert "spec.adapter.targetModules: ['query_proj']" in str(error)


def test_a_tokenizer_without_a_chat_template_for_conversations(workshop: Workshop) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "apple"}]
    rows = tiny.publish_dataset(workshop.store, RowFormat.MESSAGES, {"train": [{"messages": turns}] * 4})
    base = tiny.publish_model(workshop.store, chat_template=None)
    error = refused(workshop, workshop.plan(base=base, dataset=rows))
    assert error.reason is FailureReason.TOKENIZER_MISMATCH
    assert "no chat template" in str(error)


def test_more_truncation_than_is_allowed(workshop: Workshop) -> None:
    error = refused(workshop, workshop.plan(hyperparameters={"max_length": 16}))
    assert error.reason is FailureReason.DATA_TRUNCATED
    assert "limits.truncatedShare" in str(error)


def test_a_base_that_is_no_causal_model(workshop: Workshop) -> None:
    with workshop.store.workspace(StoredKind.MODEL) as directory:
        tiny.build_tokenizer(directory)
        (directory / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5Model"]}))
        base = workshop.store.publish(StoredKind.MODEL, directory, {})
    error = refused(workshop, workshop.plan(base=base))
    assert error.reason is FailureReason.MODEL_NOT_FOUND
    assert "causal language model" in str(error)


def test_a_dataset_revision_whose_checksum_fails(workshop: Workshop) -> None:
    file = workshop.store.path(workshop.classification) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    error = refused(workshop, workshop.plan())
    assert error.reason is FailureReason.CHECKSUM_MISMATCH
    assert "train.parquet" in str(error)


def test_an_adapter_of_another_base(workshop: Workshop) -> None:
    first = run(workshop.store, workshop.plan(hyperparameters={"epochs": 1}))
    assert first.artifact is not None
    start = StoredReference(digest=first.artifact.digest, uri=first.artifact.uri)
    wider = tiny.publish_model(workshop.store, hidden_size=96, num_attention_heads=6, num_key_value_heads=6)
    error = refused(workshop, workshop.plan(base=wider, start=start))
    assert error.reason is FailureReason.ADAPTER_MISMATCH
    assert f"was trained on {workshop.base.digest}, and the base here is {wider.digest}" in str(error)
    modules = {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj"]}
    error = refused(workshop, workshop.plan(start=start, adapter=modules))
    assert error.reason is FailureReason.INVALID_PLAN
    assert "weights of its adapter do not fit" in str(error)
    check(workshop, workshop.plan(start=start))


def test_the_command_answers_in_its_termination_message(large: Workshop, tmp_path: Path) -> None:
    plan = PreflightPlan(training=long_plan(large), device=L4, others=(H100,))
    (tmp_path / "plan.json").write_text(plan.to_json())
    argv = [
        sys.executable, "-m", "finetune_trainer", "preflight", f"--plan={tmp_path / 'plan.json'}",
        f"--store={large.store.root}", f"--scratch={tmp_path}", f"--termination-log={tmp_path / 'result.json'}",
    ]  # fmt: skip
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert PreflightResult.model_validate_json((tmp_path / "result.json").read_bytes()).predicted_peak_bytes
