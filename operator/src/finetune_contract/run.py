"""What identifies a run: the fields that decide the weights, and the resolved inputs."""

import hashlib
import json
from typing import Any

from finetune_contract.base import Sha256, StoredReference

HASH_VERSION = 1
"""Raised only when the meaning of a key changes; a frozen sample of keys is a test."""


def run_key(
    train_fields: dict[str, Any], dataset: Sha256, base: Sha256, inputs: dict[str, StoredReference] | None = None
) -> str:
    """The run's identity: 64 hexadecimal digits.

    `train_fields` are the non-default Train fields of a FineTuneJob's spec (camelCase, JSON values); `dataset` and
    `base` are the digests of the dataset revision and of the base model's directory; `inputs` are what else was
    resolved: most runs have none, and then no part of their key.
    """
    document: dict[str, Any] = {"version": HASH_VERSION, "train": train_fields, "dataset": dataset, "base": base}
    if inputs:
        document["inputs"] = {name: reference.digest for name, reference in inputs.items()}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
