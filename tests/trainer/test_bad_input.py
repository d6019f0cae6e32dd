"""Bad input, each with an exit code and a reason of its own, evidence in the message, in seconds, and nothing left.

A volume that fills up in the middle of a save is in test_full_volume.py.
"""

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, policy_of
from finetune_contract.manifest import StoredKind
from finetune_store.store import WORK
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.pods import CONTEXT, Pod
from tests.trainer.runs import reference_to, run

SECONDS = 60
"""What is seconds on an idle machine; tests share two cores with others."""


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Loaded before the clock starts: that takes a cold pod its time whatever its plan is."""
    process = CONTEXT.Process(target=int)
    process.start()
    process.join()


def unknown_field(workshop: Workshop) -> Any:
    """A plan of another release of the operator."""
    plan = json.loads(workshop.plan().to_json()) | {"colour": "blue"}
    return SimpleNamespace(run_key="a1", to_json=lambda: json.dumps(plan))


def no_causal_model(workshop: Workshop) -> Any:
    with workshop.store.workspace(StoredKind.MODEL) as directory:
        from transformers import T5Config

        tiny.build_tokenizer(directory)
        T5Config(d_model=16, num_layers=1, num_heads=2, architectures=["T5Model"]).save_pretrained(str(directory))
        return workshop.plan(base=workshop.store.publish(StoredKind.MODEL, directory, {}))


def no_chat_template(workshop: Workshop) -> Any:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "apple"}]
    rows = tiny.publish_dataset(workshop.store, RowFormat.MESSAGES, {"train": [{"messages": turns}] * 4})
    return workshop.plan(base=tiny.publish_model(workshop.store, chat_template=None), dataset=rows)


def adapter_of_another_base(workshop: Workshop) -> Any:
    first = run(workshop.store, workshop.plan(run_key="first", hyperparameters={"epochs": 0.1}, evaluation={}))
    # Of the same shape: nothing but its digest tells it from the first.
    return workshop.plan(base=tiny.publish_model(workshop.store, seed=7), start=reference_to(first))


def no_such_module(workshop: Workshop) -> Any:
    return workshop.plan(adapter={"rank": 4, "alpha": 8, "dropout": 0, "target_modules": ["query_proj"]})


def damaged_revision(workshop: Workshop) -> Any:
    file = workshop.store.path(workshop.classification) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    return workshop.plan()


def throwing_reward(workshop: Workshop) -> Any:
    """A reward model with four places for tokens, asked about more."""
    with workshop.store.workspace(StoredKind.ARTIFACT) as directory:
        from transformers import GPT2Config, GPT2ForSequenceClassification

        tokenizer = tiny.build_tokenizer(directory)
        config = GPT2Config(
            vocab_size=len(tokenizer), n_positions=4, n_embd=16, n_layer=1, n_head=2, num_labels=1, pad_token_id=0
        )
        GPT2ForSequenceClassification(config).save_pretrained(str(directory))
        judge = workshop.store.publish(StoredKind.ARTIFACT, directory, {})
    prompts = tiny.publish_dataset(
        workshop.store, RowFormat.PROMPTS, {"train": [{"prompt": "the horse and", "answer": ""}] * 16}
    )
    online = {"rewards": [{"model": judge.model_dump()}], "generations": 4, "max_completion_length": 8}
    return workshop.plan(method="GRPO", dataset=prompts, online=online)


BAD = [
    (unknown_field, FailureReason.CONTRACT_VIOLATION, "colour"),
    (no_causal_model, FailureReason.MODEL_NOT_FOUND, "spec.baseModel: is no causal language model"),
    (no_chat_template, FailureReason.TOKENIZER_MISMATCH, "chat template"),
    (adapter_of_another_base, FailureReason.ADAPTER_MISMATCH, "was trained on sha256:"),
    (no_such_module, FailureReason.INVALID_PLAN, "spec.adapter.targetModules: ['query_proj']"),
    (damaged_revision, FailureReason.CHECKSUM_MISMATCH, "train.parquet"),
    (throwing_reward, FailureReason.REWARD_FAILED, "rewards[0]: raised IndexError"),
]


@pytest.mark.parametrize(("make", "reason", "evidence"), BAD, ids=[make.__name__ for make, *_ in BAD])
def test_it_ends_by_its_own_name_in_seconds_and_leaves_nothing(
    make: Callable[[Workshop], Any], reason: FailureReason, evidence: str, workshop: Workshop
) -> None:
    plan = make(workshop)
    before = set(workshop.store.root.glob("artifacts/*"))
    began = time.monotonic()
    pod = Pod(workshop.store, plan, "bad")
    assert pod.exit_code() == policy_of(reason).exit_code
    assert time.monotonic() - began < SECONDS
    failure = pod.result().failure
    assert failure is not None
    assert failure.reason is reason
    assert evidence in failure.message
    assert set(workshop.store.root.glob("artifacts/*")) == before
    assert not [path for path in (workshop.store.root / WORK).glob("*") if path.is_dir() and any(path.iterdir())]
    assert not list(workshop.store.root.glob("runs/a1/checkpoints/*/checkpoint-*"))


def test_each_has_an_exit_code_of_its_own() -> None:
    reasons = [reason for _, reason, _ in BAD] + [FailureReason.STORAGE_FULL]
    codes = {policy_of(reason).exit_code for reason in reasons}
    assert None not in codes
    assert len(codes) == len(reasons)
