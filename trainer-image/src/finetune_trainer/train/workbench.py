"""What every stage of an attempt needs: verified inputs, the tokenizer, and how rows become text."""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.training import TrainingPlan
from finetune_store.store import Store
from finetune_trainer.train.adapters import makes_whole_model, merged_into, refuse_another_base
from finetune_trainer.train.group import together
from finetune_trainer.train.model import Device, context_of, find_device, load_tokenizer, stored_dtype
from finetune_trainer.train.ranks import ALONE, Ranks
from finetune_trainer.train.render import Renderer
from finetune_trainer.train.rows import Revision, open_revision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workbench:
    """The inputs of one attempt, in this pod."""

    store: Store
    base: Path
    """The base model's directory; with an earlier adapter merged into it where a whole model is made."""
    start: Path | None
    """The earlier adapter that is trained further."""
    revision: Revision
    context: int
    """Tokens the model can attend to."""
    tokenizer: Any
    renderer: Renderer
    device: Device


def open_workbench(plan: TrainingPlan, store: Store, ranks: Ranks = ALONE) -> Workbench:
    """Verify the inputs, once per pod, and load the tokenizer.

    Raises:
        FineTuneError: StorageUnavailable, ChecksumMismatch, InvalidPlan, DatasetInvalid, ModelNotFound,
            AdapterMismatch or TokenizerMismatch.
    """
    verified = store.verify if ranks.local == 0 else store.path
    base = verified(plan.base)
    revision = open_revision(verified(plan.dataset), plan.method)
    start = verified(plan.start) if plan.start else None
    together(ranks)
    context = context_of(base)  # first: it says whether there is a model at all
    if start:
        refuse_another_base(start, plan.base)
    if start and makes_whole_model(plan):
        base, start = merged_base(base, start), None
    tokenizer = load_tokenizer(base)
    renderer = Renderer(tokenizer, revision.row_format)
    return Workbench(store, base, start, revision, context, tokenizer, renderer, find_device(plan))


def merged_base(base: Path, adapter: Path) -> Path:
    """The base with an adapter in its weights, beside its tokenizer; lost with the pod."""
    log.info("the adapter is merged into the base")
    directory = Path(tempfile.mkdtemp(prefix="merged-base-"))
    for path in base.iterdir():
        if path.is_file() and path.suffix not in (".safetensors", ".bin") and ".safetensors." not in path.name:
            shutil.copy(path, directory)
    merged_into(base, adapter, stored_dtype(base), directory)
    return directory
