"""One look of the collector at a store of either kind."""

import time
from collections.abc import Callable

from finetune_contract.collection import CollectionPlan, CollectionResult
from finetune_store.collection import Collection
from finetune_store.store import Store


def collect(plan: CollectionPlan, store: Store, clock: Callable[[], float] = time.time) -> CollectionResult:
    """Mark what nothing refers to, and delete what has been marked for long enough.

    Raises:
        FineTuneError: InvalidPlan when the plan is too old, StorageUnavailable when other namespaces use the store.
    """
    if plan.s3 is not None:
        # boto3 is there only where a bucket is the store.
        from finetune_store.s3collect import S3Collection
        from finetune_store.s3store import S3Store

        assert isinstance(store, S3Store)
        return S3Collection(plan, store, clock).run()
    return Collection(plan, store.root, clock).run()
