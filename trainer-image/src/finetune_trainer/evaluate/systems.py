"""The models that are compared: the tuned one as it will be published, its base, and what jobs made before."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finetune_contract.base import StoredReference
from finetune_contract.evaluating import TUNED, Baseline
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.adapters import makes_whole_model
from finetune_trainer.train.model import context_of, load_model, load_tokenizer
from finetune_trainer.train.render import Renderer
from finetune_trainer.train.workbench import Workbench


class Systems:
    """Loads what a system needs; holds one model at a time, because two may not fit a GPU."""

    def __init__(self, plan: TrainingPlan, bench: Workbench, artifact: Path) -> None:
        """Take the plan, the inputs, and the directory that will be published."""
        self._plan = plan
        self._bench = bench
        self._artifact = artifact
        self._loaded: tuple[Path, Any] | None = None
        wanted = plan.evaluation
        self._others: dict[str, tuple[StoredReference, StoredReference | None]] = {
            each.name: (each.artifact, each.base) for each in wanted.named_baselines if each.artifact
        }
        if wanted.previous is not None:
            self._others[Baseline.PREVIOUS.value] = wanted.previous, wanted.previous_base
        self._benches: dict[str, Workbench] = {}
        self._verified_paths: dict[str, Path] = {}

    def identity(self, system: str) -> str | None:
        """What a baseline's model is made of, by content; None for the tuned model: it is always measured."""
        plan = self._plan
        if system == TUNED:
            return None
        if system in self._others:
            return "+".join(each.digest for each in self._others[system] if each)
        # An earlier job's adapter is in the base's weights where a whole model is made of it.
        is_merged = plan.start is not None and makes_whole_model(plan)
        return f"{plan.base.digest}+{plan.start.digest}" if is_merged and plan.start else plan.base.digest

    def bench(self, system: str) -> Workbench:
        """The inputs with the tokenizer that the system reads with: its own, where another job's has another one."""
        if system not in self._others:
            return self._bench
        if system not in self._benches:
            artifact, base = self._others[system]
            self._benches[system] = self._with_tokenizer_of(self._verified(artifact), self._verified(base or artifact))
        return self._benches[system]

    @contextmanager
    def model(self, system: str) -> Iterator[Any]:
        """The model of a system, for evaluation only."""
        with torch.inference_mode():
            if system in self._others:
                artifact, base = self._others[system]
                yield self._load(self._verified(artifact), on=self._verified(base) if base else None)
                return
            is_tuned = system == TUNED
            if makes_whole_model(self._plan):
                yield self._load(self._artifact if is_tuned else self._bench.base)
            else:
                model = self._load(self._artifact, on=self._bench.base)
                adapter: AbstractContextManager[Any] = nullcontext() if is_tuned else model.disable_adapter()
                with adapter:
                    yield model

    def release(self) -> None:
        """Let go of the model that is held."""
        self._loaded = None

    def _load(self, directory: Path, on: Path | None = None) -> Any:  # noqa: ANN401 - transformers has no types
        """A whole model, or an adapter on one."""
        if self._loaded is None or self._loaded[0] != directory:
            self._loaded = None
            dtype = self._bench.device.dtype(trained=False)
            model = load_model(on or directory, dtype, self._bench.device)
            if on is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(directory))
            self._loaded = directory, model.eval()
        return self._loaded[1]

    # --- what jobs made before ---

    def _verified(self, reference: StoredReference) -> Path:
        if reference.digest not in self._verified_paths:
            self._verified_paths[reference.digest] = self._bench.store.verify(reference)
        return self._verified_paths[reference.digest]

    def _with_tokenizer_of(self, artifact: Path, model: Path) -> Workbench:
        """The inputs as they are where the tokenizer is the same: only then losses can be compared, too."""
        tokenizer, ours = load_tokenizer(artifact), self._bench.tokenizer
        context = context_of(model)
        if (tokenizer.get_vocab(), tokenizer.chat_template) == (ours.get_vocab(), ours.chat_template):
            return self._bench if context >= self._bench.context else replace(self._bench, context=context)
        renderer = Renderer(tokenizer, self._bench.revision.row_format)
        return replace(self._bench, tokenizer=tokenizer, renderer=renderer, context=context)
