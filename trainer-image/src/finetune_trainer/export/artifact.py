"""The files of an artifact: an adapter or a model, complete with tokenizer, and nothing that changes by chance.

The directory's digest names the artifact, so the same weights must give the same bytes: no paths of this pod, no
dates, no order of a set.
"""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from finetune_contract.base import Sha256
from finetune_contract.paths import CARD_FILE, MANIFEST_FILE
from finetune_trainer.train.adapters import merged_into, write_plain_adapter
from finetune_trainer.train.model import SAFE

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)
"""What tokenizers are read from; copied from the base as they are."""


def write_adapter(checkpoint: Path, base: Path, base_digest: Sha256, directory: Path) -> None:
    """An adapter's files, from the checkpoint of the last step.

    Args:
        checkpoint: Holds `adapter_model.safetensors` and `adapter_config.json`.
        base: The base model's directory, for the tokenizer.
        base_digest: Stands in the adapter's configuration where peft would write a path.
        directory: Where the files go.
    """
    write_plain_adapter(checkpoint, directory, base_model_name_or_path=base_digest)
    copy_tokenizer(base, directory)


def write_model(checkpoint: Path, base: Path, dtype: torch.dtype, directory: Path) -> None:
    """A model's files, from the checkpoint of the last step, in the precision its base was published in."""
    model = AutoModelForCausalLM.from_pretrained(str(checkpoint), dtype=dtype, use_safetensors=True, **SAFE)
    model.config.use_cache = True
    model.save_pretrained(str(directory))
    copy_tokenizer(base, directory)


def write_merged_model(checkpoint: Path, base: Path, dtype: torch.dtype, directory: Path) -> None:
    """A model's files: a fresh base with the adapter of the last step's checkpoint merged into its weights."""
    merged_into(base, checkpoint, dtype, directory)
    copy_tokenizer(base, directory)


def size_of(directory: Path) -> int:
    """Bytes of an artifact's files; those that its digest leaves out, manifest and card, are not counted."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name not in (CARD_FILE, MANIFEST_FILE))
    return sum(path.stat().st_size for path in files)


def copy_tokenizer(base: Path, directory: Path) -> None:
    """The base's tokenizer, as it is."""
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copy(base / name, directory)
