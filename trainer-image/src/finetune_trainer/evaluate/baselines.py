"""What baselines said before: a second job on the same rows does not measure the same base again.

An entry is named by everything that decides it: the model's content, every token of every prompt (so the rows, the chat
template, and the solved rows of FewShot with their seed), what limits an answer, the precision, and the libraries.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from pydantic import ValidationError

from finetune_contract.base import Document
from finetune_store.store import Store
from finetune_trainer.evaluate.benchmark import Tasks
from finetune_trainer.evaluate.generate import Ids, Loss

log = logging.getLogger(__name__)

_VERSION = 1
"""Raised when this code would measure something else under the same name."""


class Measured(Document):
    """One entry."""

    answers: tuple[tuple[int, ...], ...] = ()
    losses: tuple[tuple[float, int], ...] = ()
    texts: tuple[str, ...] = ()
    tasks: Tasks | None = None


class Memory:
    """The entries of one store, for one model of it."""

    def __init__(self, store: Store, model: str, dtype: str) -> None:
        """Take what names the model: digests of its files, and the precision and device it is computed in."""
        self._store = store
        self._fixed = {
            "version": _VERSION,
            "model": model,
            "dtype": dtype,
            "libraries": [torch.__version__, transformers.__version__],
        }

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Sequence[int],
        measure: Callable[[], list[list[int]]],
    ) -> tuple[list[list[int]], bool]:
        """The answers to prompts, and whether they were known."""
        key = self._key("answers", _digest(prompts), maxNewTokens=max_new_tokens, stopIds=list(stop_ids))
        known = self._recall(key)
        if known is not None and len(known.answers) == len(prompts):
            return [list(each) for each in known.answers], True
        found = measure()
        self._keep(key, Measured(answers=tuple(tuple(each) for each in found)))
        return found, False

    def losses(
        self, sequences: Sequence[tuple[Ids, Ids]], measure: Callable[[], list[Loss]]
    ) -> tuple[list[Loss], bool]:
        """The losses of (ids, labels), and whether they were known."""
        key = self._key("losses", _digest([part for pair in sequences for part in pair]))
        known = self._recall(key)
        if known is not None and len(known.losses) == len(sequences):
            return [Loss(*each) for each in known.losses], True
        found = measure()
        if all(abs(loss.total) < float("inf") for loss in found):
            self._keep(key, Measured(losses=tuple((each.total, each.tokens) for each in found)))
        return found, False

    def texts(self, asked: Any, measure: Callable[[], list[str]]) -> tuple[list[str], bool]:  # noqa: ANN401 - JSON
        """The answers of an endpoint to conversations and settings, and whether they were known."""
        key = self._key("texts", hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest())
        known = self._recall(key)
        if known is not None and known.texts:
            return list(known.texts), True
        found = measure()
        self._keep(key, Measured(texts=tuple(found)))
        return found, False

    def tasks(self, asked: str, measure: Callable[[], Tasks]) -> tuple[Tasks, bool]:
        """What tasks say, by the name of what is asked, and whether it was known."""
        key = self._key("tasks", asked)
        known = self._recall(key)
        if known is not None and known.tasks is not None:
            return known.tasks, True
        found = measure()
        self._keep(key, Measured(tasks=found))
        return found, False

    def _key(self, kind: str, rows: str, **settings: Any) -> str:  # noqa: ANN401 - whatever JSON holds
        named = {**self._fixed, "kind": kind, "rows": rows, **settings}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def _recall(self, key: str) -> Measured | None:
        found = self._store.recall(key)
        if found is None:
            return None
        try:
            return Measured.model_validate_json(found)
        except ValidationError:
            log.warning("what is known of a baseline cannot be read (%s) and is measured again", key)
            return None

    def _keep(self, key: str, measured: Measured) -> None:
        self._store.remember(key, measured.to_json())


def _digest(rows: Sequence[Ids]) -> str:
    whole = hashlib.sha256()
    for row in rows:
        ids = [int(each) for each in row]
        whole.update(f"{len(ids)}:{','.join(map(str, ids))};".encode())
    return whole.hexdigest()
