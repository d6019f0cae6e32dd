"""Which store a plan means."""

from pathlib import Path

from finetune_contract.storage import StorePlan
from finetune_store.checkpoints import Checkpoints
from finetune_store.store import Store


def open_store(plan: StorePlan, root: Path) -> Store:
    """The store of a pod's plan.

    Args:
        plan: Says where the store is.
        root: Where its claim is mounted, or an empty directory for copies of what is in S3.

    Raises:
        FineTuneError: StorageUnavailable when there is nothing at `root`.
    """
    if plan.s3 is None:
        return Store(root, plan.claim)
    from finetune_store.s3store import S3Store

    return S3Store(root, plan.s3)


def open_checkpoints(store: Store, run_key: str, pod_uid: str, keep: int) -> Checkpoints:
    """The checkpoints of a run in a store, as one pod incarnation sees them; at least one is kept."""
    from finetune_store.s3store import S3Store

    if not isinstance(store, S3Store):
        return Checkpoints(store, run_key, pod_uid, keep)
    from finetune_store.s3checkpoints import S3Checkpoints

    return S3Checkpoints(store, run_key, pod_uid, keep)
