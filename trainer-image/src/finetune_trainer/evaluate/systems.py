"""The models that are compared: the tuned one as it will be published, and its base."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from finetune_contract.evaluating import TUNED
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.adapters import makes_whole_model
from finetune_trainer.train.model import load_model
from finetune_trainer.train.workbench import Workbench


class Systems:
    """Loads what a system needs; holds one model at a time, because two may not fit a GPU."""

    def __init__(self, plan: TrainingPlan, bench: Workbench, artifact: Path) -> None:
        """Take the plan, the inputs, and the directory that will be published."""
        self._plan = plan
        self._bench = bench
        self._artifact = artifact
        self._loaded: tuple[Path, Any] | None = None

    @contextmanager
    def model(self, system: str) -> Iterator[Any]:
        """The model of `Tuned`, or of any other system the base, for evaluation only."""
        is_tuned = system == TUNED
        with torch.inference_mode():
            if makes_whole_model(self._plan):
                yield self._load(self._artifact if is_tuned else self._bench.base)
            else:
                model = self._load_with_adapter()
                adapter: AbstractContextManager[Any] = nullcontext() if is_tuned else model.disable_adapter()
                with adapter:
                    yield model

    def _load(self, directory: Path) -> Any:  # noqa: ANN401 - transformers has no types
        if self._loaded is None or self._loaded[0] != directory:
            self._loaded = None
            dtype = self._bench.device.dtype(trained=False)
            self._loaded = directory, load_model(directory, dtype, self._bench.device).eval()
        return self._loaded[1]

    def _load_with_adapter(self) -> Any:  # noqa: ANN401
        from peft import PeftModel

        if self._loaded is None:
            base = load_model(self._bench.base, self._bench.device.dtype(trained=False), self._bench.device)
            self._loaded = self._artifact, PeftModel.from_pretrained(base, str(self._artifact)).eval()
        return self._loaded[1]
