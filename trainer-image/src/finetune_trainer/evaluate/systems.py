"""The models that are compared: the tuned one as it will be published, its base, and what the job made before."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finetune_contract.evaluating import TUNED, Baseline
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.adapters import makes_whole_model
from finetune_trainer.train.model import load_model, load_tokenizer
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
        self._bench_of_previous: Workbench | None = None

    def identity(self, system: str) -> str | None:
        """What a baseline's model is made of, by content; None for the tuned model: it is always measured."""
        plan = self._plan
        if system == TUNED:
            return None
        wanted = plan.evaluation
        if system == Baseline.PREVIOUS:
            assert wanted.previous is not None
            return "+".join(each.digest for each in (wanted.previous, wanted.previous_base) if each)
        # An earlier job's adapter is in the base's weights where a whole model is made of it.
        is_merged = plan.start is not None and makes_whole_model(plan)
        return f"{plan.base.digest}+{plan.start.digest}" if is_merged and plan.start else plan.base.digest

    def bench(self, system: str) -> Workbench:
        """The inputs with the tokenizer that the system reads with: its own, where Previous has another one."""
        if system != Baseline.PREVIOUS:
            return self._bench
        if self._bench_of_previous is None:
            self._bench_of_previous = self._with_tokenizer_of(self._previous())
        return self._bench_of_previous

    @contextmanager
    def model(self, system: str) -> Iterator[Any]:
        """The model of a system, for evaluation only."""
        with torch.inference_mode():
            if system == Baseline.PREVIOUS:
                yield self._load_previous()
                return
            is_tuned = system == TUNED
            if makes_whole_model(self._plan):
                yield self._load(self._artifact if is_tuned else self._bench.base)
            else:
                model = self._load(self._artifact, on=self._bench.base)
                adapter: AbstractContextManager[Any] = nullcontext() if is_tuned else model.disable_adapter()
                with adapter:
                    yield model

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

    # --- what the job made before ---

    def _load_previous(self) -> Any:  # noqa: ANN401
        base = self._plan.evaluation.previous_base
        return self._load(self._previous(), on=self._bench.store.verify(base) if base else None)

    def _previous(self) -> Path:
        assert self._plan.evaluation.previous is not None
        return self._bench.store.verify(self._plan.evaluation.previous)

    def _with_tokenizer_of(self, artifact: Path) -> Workbench:
        """The inputs as they are where the tokenizer is the same: only then losses can be compared, too."""
        tokenizer, ours = load_tokenizer(artifact), self._bench.tokenizer
        if (tokenizer.get_vocab(), tokenizer.chat_template) == (ours.get_vocab(), ours.chat_template):
            return self._bench
        return replace(self._bench, tokenizer=tokenizer, renderer=Renderer(tokenizer, self._bench.revision.row_format))
