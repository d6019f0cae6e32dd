"""The output and the error file, made of all shards; and finding them again."""

import logging

from pydantic import ValidationError

from finetune_batch.items import Input
from finetune_batch.shards import Shards, Tally
from finetune_contract.batching import ERRORS_FILE, MOST_CODES, OUTPUT_FILE, BatchPlan, BatchResult, ErrorCount
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_store.store import Store

log = logging.getLogger(__name__)


def found_before(store: Store, plan: BatchPlan, source: Input) -> BatchResult | None:
    """What was published of this key and this input, if it is still there and whole."""
    text = store.recorded(plan.key, _record(source))
    if text is None:
        return None
    try:
        result = BatchResult.model_validate_json(text)
    except ValidationError as error:
        log.warning("an earlier result is not readable, and is made again: %s", error.errors()[0]["msg"])
        return None
    if result.output is None or not store.holds(result.output):
        return None
    return result.model_copy(update={"reused": True})


def publish(
    store: Store, plan: BatchPlan, source: Input, shards: Shards, resumed: int, device: str | None
) -> BatchResult:
    """Put all shards together, in the input's order.

    Raises:
        FineTuneError: StorageUnavailable when a shard that was there is not any more.
    """
    written = Tally()
    with store.workspace(StoredKind.BATCH) as work:
        with (work / OUTPUT_FILE).open("w", encoding="ascii") as output, (work / ERRORS_FILE).open("w") as failures:
            for shard in shards.chain():
                output.writelines(f"{line}\n" for line in shard.output)
                failures.writelines(f"{line}\n" for line in shard.failures)
                written.add(shard)
        if written.counts.rows != source.rows:
            raise FineTuneError(
                FailureReason.STORAGE_UNAVAILABLE,
                f"runs/{plan.key}: {source.rows} rows were answered and {written.counts.rows} are there; "
                "another attempt answers what is missing",
            )
        lineage = {"key": plan.key, "input": source.digest, "base": plan.base.digest}
        if plan.adapter is not None:
            lineage["adapter"] = plan.adapter.digest
        reference = store.publish(StoredKind.BATCH, work, lineage)
    result = BatchResult(
        output=reference,
        input_digest=source.digest,
        total_rows=source.rows,
        counts=written.counts,
        resumed_rows=resumed,
        errors=tuple(ErrorCount(code=code, rows=rows) for code, rows in written.errors.most_common(MOST_CODES)),
        device=device,
    )
    store.record(plan.key, _record(source), result.to_json())
    return result


def _record(source: Input) -> str:
    return f"batch-{source.digest.removeprefix('sha256:')[:16]}.json"
