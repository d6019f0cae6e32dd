"""Batches whose store and whose input are in S3: pods have nothing in common but the bucket."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.batching import ERRORS_FILE, OUTPUT_FILE, BatchPlan
from finetune_contract.storage import S3Location
from finetune_store.s3store import S3Store
from tests.s3server import KEYS, STORE_KEYS, S3Server, s3_server
from tests.trainer.batch.pods import Pod
from tests.trainer.batch.requests import KEY, chat, plan_of, write
from tests.trainer.runs import moved
from tests.trainer.server.tiny import Shop

ROWS = 400
BAD = 77
"""A line that is no request."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    for name, value in STORE_KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "server").mkdir()
    with s3_server(tmp_path / "server") as server:
        for bucket in ("models", "requests"):
            server.client().create_bucket(Bucket=bucket)
        yield server


class Cluster:
    """A store in the bucket with model and adapter, and pods that each have a disk of their own."""

    def __init__(self, shop: Shop, adapter: StoredReference, server: S3Server, prefix: str) -> None:
        self._directory = shop.root / prefix
        self._location = S3Location(uri=f"s3://models/{prefix}", endpoint=server.endpoint)
        self._shards = server.data / "models" / prefix / "runs" / KEY / "shards"
        store = self.store("operator")
        source = {"uri": "s3://requests/a", "endpoint": server.endpoint}
        plan = plan_of(shop, moved(shop.store, adapter, store), input={"jsonl": {"s3": source}}, max_error_share=0.01)
        update = {"base": moved(shop.store, shop.base, store), "claim": "", "s3": self._location}
        self.plan: BatchPlan = plan.model_copy(update=update)

    def store(self, pod: str) -> S3Store:
        """The store as a pod sees it that has copied nothing yet."""
        root = self._directory / pod / "store"
        root.mkdir(parents=True)
        return S3Store(root, self._location)

    def pod(self, name: str) -> Pod:
        root = self.store(name).root
        return Pod(root.parent, root, self.plan, root.parent / "nothing", **KEYS, **STORE_KEYS)

    def shards(self) -> dict[Path, tuple[bytes, int]]:
        """What is sealed, and when it was written."""
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(self._shards.glob("*/*"))}

    def files(self, output: StoredReference) -> list[bytes]:
        """The output and the error file, but for when lines were written."""
        directory = self.store("reader").verify(output)
        return [
            re.sub(rb'"created":[0-9]+', b'"created":0', (directory / name).read_bytes())
            for name in (OUTPUT_FILE, ERRORS_FILE)
        ]


def test_a_batch_goes_on_in_a_pod_with_another_disk_byte_by_byte(
    shop: Shop, adapter: StoredReference, server: S3Server, tmp_path: Path
) -> None:
    lines = [chat(row, f"The operator {row}", max_tokens=40) for row in range(ROWS)]
    text = write(tmp_path / "source/a.jsonl", [*lines[:BAD], "nonsense", *lines[BAD + 1 :]]).read_bytes()
    server.client().put_object(Bucket="requests", Key="a/a.jsonl", Body=text)
    disturbed, calm = (Cluster(shop, adapter, server, prefix) for prefix in ("disturbed", "calm"))

    killed = disturbed.pod("killed")
    killed.wait_until(lambda: len(disturbed.shards()) >= 3)
    killed.signal(signal.SIGKILL)
    assert killed.exit_code() == -signal.SIGKILL
    kept = disturbed.shards()
    assert 3 <= len(kept) < ROWS // 8

    second = disturbed.pod("second")
    assert second.exit_code() == 0
    result = second.result()
    assert (result.total_rows, result.resumed_rows, result.counts.failed) == (ROWS, 8 * len(kept), 1)
    there = disturbed.shards()
    assert {path: there[path] for path in kept} == kept, "what was sealed is not answered again"
    assert len(there) == ROWS // 8
    assert result.output is not None

    undisturbed = calm.pod("calm")
    assert undisturbed.exit_code() == 0
    whole = undisturbed.result()
    assert whole.output is not None
    assert (whole.resumed_rows, whole.counts.generated_tokens) == (0, result.counts.generated_tokens)
    assert disturbed.files(result.output) == calm.files(whole.output)

    again = disturbed.pod("again")
    assert again.exit_code() == 0
    assert again.result() == result.model_copy(update={"reused": True})
    assert disturbed.shards() == there
