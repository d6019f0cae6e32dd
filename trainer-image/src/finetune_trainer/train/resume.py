"""Where an attempt goes on: rank 0 chooses the checkpoint, and every pod has it on its disk before anybody reads it."""

from pathlib import Path

from finetune_store.checkpoints import Checkpoints
from finetune_trainer.train.group import from_first, together
from finetune_trainer.train.ranks import Ranks


def newest_for_all(ranks: Ranks, checkpoints: Checkpoints) -> tuple[int, Path] | None:
    """Step and directory of the newest checkpoint that verifies, the same on every rank.

    Raises:
        FineTuneError: CheckpointCorrupt when a rank whose pod has a disk of its own cannot read what rank 0 chose.
    """
    newest = checkpoints.newest() if ranks.is_first else None
    found = from_first(ranks, (newest[0], newest[1].parent.name) if newest else None)
    if found is None:
        return None
    step, pod = found
    if ranks.local == 0:
        checkpoints.on_this_disk(pod, step)
    together(ranks)
    return step, checkpoints.on_this_disk(pod, step)
