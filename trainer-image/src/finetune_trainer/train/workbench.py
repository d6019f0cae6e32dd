"""What every stage of an attempt needs: verified inputs, the tokenizer, and how rows become text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.plans import TrainingPlan
from finetune_store.store import Store
from finetune_trainer.train.group import together
from finetune_trainer.train.model import Device, context_of, find_device, load_tokenizer
from finetune_trainer.train.ranks import ALONE, Ranks
from finetune_trainer.train.render import Renderer
from finetune_trainer.train.rows import Revision, open_revision


@dataclass(frozen=True)
class Workbench:
    """The inputs of one attempt, in this pod."""

    base: Path
    """The base model's directory."""
    revision: Revision
    context: int
    """Tokens the model can attend to."""
    tokenizer: Any
    renderer: Renderer
    device: Device


def open_workbench(plan: TrainingPlan, store: Store, ranks: Ranks = ALONE) -> Workbench:
    """Verify the inputs, once per pod, and load the tokenizer.

    Raises:
        FineTuneError: StorageUnavailable, InvalidPlan, DatasetInvalid, ModelNotFound or TokenizerMismatch.
    """
    verified = store.verify if ranks.local == 0 else store.path
    base = verified(plan.base)
    revision = open_revision(verified(plan.dataset), plan.method)
    together(ranks)
    context = context_of(base)  # first: it says whether there is a model at all
    tokenizer = load_tokenizer(base)
    return Workbench(base, revision, context, tokenizer, Renderer(tokenizer, revision.row_format), find_device(plan))
