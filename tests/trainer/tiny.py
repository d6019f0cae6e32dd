"""Tiny real things to train: a Llama of 0.1 M parameters, its tokenizer, datasets, plans. Valid by default."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.manifest import StoredKind
from finetune_contract.methods import Method
from finetune_contract.training import TrainingPlan
from finetune_store.store import Store

CLAIM = "finetune-artifacts"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MARKED_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "melon"],
    "animal": ["horse", "goose", "otter", "spider", "whale"],
    "metal": ["iron", "copper", "zinc", "silver", "tin"],
}


def classification_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences about one thing, labelled with its kind."""
    pick = random.Random(seed)
    rows = []
    for _ in range(count):
        label = pick.choice(sorted(_WORDS))
        words = pick.choices(_WORDS[label], k=pick.randint(1, 6))
        rows.append({"text": f"there was the {' and the '.join(words)} again", "label": label})
    return rows


def preference_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """What kind of thing it was: the right answer, and a wrong one."""
    pick = random.Random(seed)
    rows = []
    for row in classification_rows(count, seed):
        wrong = pick.choice([label for label in sorted(_WORDS) if label != row["label"]])
        prompt = [{"role": "user", "content": row["text"]}]
        rows.append({"prompt": prompt, "chosen": row["label"], "rejected": wrong})
    return rows


def text_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The same sentences as plain text of very different lengths."""
    pick = random.Random(seed)
    sentences = [row["text"] for row in classification_rows(3 * count, seed)]
    return [{"text": ". ".join(pick.choices(sentences, k=pick.choice([1, 1, 2, 9])))} for _ in range(count)]


def build_tokenizer(directory: Path, chat_template: str | None = CHATML) -> Any:
    """A byte-level BPE tokenizer of about 400 tokens, trained on the rows above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([row["text"] + " " + row["label"] for row in classification_rows(200)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = chat_template
    fast.save_pretrained(str(directory))
    return fast


def build_byte_fallback_tokenizer(directory: Path) -> Any:
    """A tokenizer of the kind that Llama 2 and Mistral have: what it does not know is spelt in bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    ])  # fmt: skip
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *pieces], show_progress=False)
    words = [word for row in classification_rows(200) for word in f"{row['text']} {row['label']}".split()]
    tokenizer.train_from_iterator([f"▁{word}" for word in words], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    fast.chat_template = CHATML
    fast.save_pretrained(str(directory))
    return fast


def build_model(directory: Path, seed: int = 0, **config: Any) -> Any:
    """A random Llama beside its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {
        "vocab_size": 448,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    dtype = config.pop("dtype", None)
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **config}))
    if dtype:
        model = model.to(getattr(torch, dtype))
    model.save_pretrained(str(directory))
    return model


def publish_model(store: Store, chat_template: str | None = CHATML, **config: Any) -> StoredReference:
    """A base model in the store."""
    with store.workspace(StoredKind.MODEL) as directory:
        build_tokenizer(directory, chat_template)
        build_model(directory, **config)
        return store.publish(StoredKind.MODEL, directory, {})


def publish_dataset(
    store: Store,
    row_format: RowFormat,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    files: Mapping[str, str] | None = None,
) -> StoredReference:
    """A dataset revision in the store, and what else lies beside its rows."""
    with store.workspace(StoredKind.DATASET) as directory:
        for name, text in (files or {}).items():
            (directory / name).write_text(text)
        for name, rows in splits.items():
            parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), directory / f"{name}.parquet")
        return store.publish(StoredKind.DATASET, directory, {"format": row_format.value})


def make_plan(base: StoredReference, dataset: StoredReference, **changes: Any) -> TrainingPlan:
    """A plan that trains a LoRA adapter in a few seconds; `hyperparameters` changes are merged."""
    hyperparameters = {
        "epochs": 2,
        "learning_rate": 5e-3,
        "global_batch_size": 8,
        "packing": False,
        **changes.pop("hyperparameters", {}),
    }
    document = {
        "name": "tiny",
        "namespace": "test",
        "run_key": "a1",
        "attempt": 1,
        "method": Method.SFT,
        "base": base,
        "dataset": dataset,
        "adapter": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "hyperparameters": hyperparameters,
        "claim": CLAIM,
        **changes,
    }
    return TrainingPlan.model_validate(document)


def read_result(path: Path) -> Any:
    """What a pod left in its termination log."""
    return json.loads(path.read_text())
