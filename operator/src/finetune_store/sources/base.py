"""What every source of a base model does, and which of its files a model needs."""

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finetune_contract.failure import FailureReason, FineTuneError

CONFIG_FILE = "config.json"
_WEIGHTS = "model*.safetensors"
_INDEX = "model.safetensors.index.json"
_NEEDED = (
    CONFIG_FILE,
    "generation_config.json",
    _WEIGHTS,
    _INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""What transformers loads a model and its tokenizer from, without running the repository's code or pickles."""


@dataclass(frozen=True)
class Listing:
    """What a source holds now."""

    revision: str
    """Changes whenever the content does."""
    files: Mapping[str, int]
    """Bytes of each file a model needs, by path."""
    license: str | None = None
    """The licence that the source states, for model cards."""


class Source(Protocol):
    """Where a base model comes from."""

    address: str
    """The source without its revision, for the lineage and the pointer to its digest."""
    name: str
    """The source as its author wrote it, for messages."""
    field: str
    """The source's path in the YAML."""

    def listing(self) -> Listing:
        """What is there now.

        Raises:
            FineTuneError: ModelNotFound, ModelAccessDenied or SourceUnavailable.
        """
        ...

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Bring the listed files into a directory; raises like `listing`."""
        ...


def is_needed(path: str) -> bool:
    """Whether a file of a repository belongs to the model."""
    # fnmatch's `*` crosses slashes, and copies of weights in subfolders are of no use.
    return any(fnmatch.fnmatch(path, pattern) and path.count("/") == pattern.count("/") for pattern in _NEEDED)


def must_be_a_model(names: Mapping[str, int] | set[str], source: Source) -> None:
    """Refuse what transformers could not load safely.

    Raises:
        FineTuneError: ModelNotFound, saying what is missing.
    """
    if CONFIG_FILE not in names:
        missing = f"has no {CONFIG_FILE} (found {_some_of(names)}); name a directory with a Transformers model"
    elif not fnmatch.filter(names, _WEIGHTS):
        missing = f"has no weights in model*.safetensors (found {_some_of(names)}); convert them: pickles are not read"
    else:
        return
    raise FineTuneError(FailureReason.MODEL_NOT_FOUND, f"{source.field}: {source.name} {missing}")


def must_have_every_shard(directory: Path, source: Source) -> None:
    """Refuse a model whose index names weights that are not there.

    Raises:
        FineTuneError: ModelNotFound, naming the file.
    """
    index = directory / _INDEX
    if not index.exists():
        return
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FineTuneError(
            FailureReason.MODEL_NOT_FOUND, f"{source.field}: {source.name}: {_INDEX} is not an index of shards"
        ) from error
    for shard in sorted(shards):
        if not (directory / shard).is_file():
            raise FineTuneError(
                FailureReason.MODEL_NOT_FOUND,
                f"{source.field}: {source.name}: {shard}, named by {_INDEX}, is missing",
            )


def _some_of(names: Mapping[str, int] | set[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:5]) + (", ..." if len(found) > 5 else "") if found else "no files of a model"
