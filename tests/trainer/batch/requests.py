"""Files of requests, and batches in this process."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_batch.board import BatchBoard
from finetune_batch.run import batch
from finetune_contract.base import StoredReference
from finetune_contract.batching import ERRORS_FILE, OUTPUT_FILE, BatchPlan, BatchResult
from finetune_contract.paths import attempt_name
from tests.trainer.server.tiny import CLAIM, Shop

KEY = "3f" * 32


def chat(number: int, text: str = "The operator", **body: Any) -> dict[str, Any]:
    """One good line."""
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": f"ask-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "triage", "messages": messages, "max_tokens": 6, **body},
    }


def completion(number: int, prompt: str | list[int] = "A dataset becomes", **body: Any) -> dict[str, Any]:
    """One good line of the other kind."""
    told = {"model": "triage", "prompt": prompt, "max_tokens": 6, **body}
    return {"custom_id": f"text-{number}", "method": "POST", "url": "/v1/completions", "body": told}


def write(path: Path, lines: Sequence[Mapping[str, Any] | str | bytes]) -> Path:
    """A file of lines, as they are or as JSON."""
    path.parent.mkdir(exist_ok=True)
    texts = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    path.write_bytes(b"".join((text.encode() if isinstance(text, str) else text) + b"\n" for text in texts))
    return path


def plan_of(shop: Shop, adapter: StoredReference | None, **changes: Any) -> BatchPlan:
    """A valid plan: all files of the source, through an adapter."""
    settings = {"input": {"jsonl": {"files": "*.jsonl"}}, "shard_rows": 8, **changes}
    return BatchPlan(
        key=settings.pop("key", KEY),
        attempt=settings.pop("attempt", attempt_name("uid", 1)),
        name="triage",
        namespace="test",
        base=shop.base,
        adapter=adapter,
        claim=CLAIM,
        **settings,
    )


def run(shop: Shop, plan: BatchPlan, source: Path) -> BatchResult:
    """A batch to its end."""
    scratch = source.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return batch(plan, shop.store.root, source, scratch, BatchBoard(plan.key))


def files_of(shop: Shop, result: BatchResult | StoredReference) -> tuple[list[Any], list[Any]]:
    """The documents of the output and of the error file."""
    reference = result.output if isinstance(result, BatchResult) else result
    assert reference is not None
    directory = shop.store.verify(reference)
    output, errors = (
        [json.loads(line) for line in (directory / name).read_text().splitlines()]
        for name in (OUTPUT_FILE, ERRORS_FILE)
    )
    return output, errors


def content(line: Any) -> str:
    """What was answered."""
    (choice,) = line["response"]["body"]["choices"]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])
