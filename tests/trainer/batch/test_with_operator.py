"""Both sides of the pod boundary: the plan that the operator writes is carried out, and its result is read."""

from pathlib import Path
from typing import Any

from finetune_batch.__main__ import main
from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, policy_of
from finetune_contract.paths import LOG_FILE, attempt_name, attempt_path
from tests import factories
from tests.trainer import tiny as trainer_tiny
from tests.trainer.batch.requests import chat, content, files_of, write
from tests.trainer.server.tiny import Shop
from tests.unit.reconcile.world import World


def world_of(shop: Shop, adapter: StoredReference, **spec: Any) -> World:
    """A BatchInference beside a FineTuneJob with the shop's adapter, and a Dataset of its store."""
    job = factories.finished_job()
    job["status"]["artifact"] |= {**adapter.model_dump(), "base": shop.base.model_dump()}
    row = {"text": "json is", "label": "module"}
    revision = trainer_tiny.publish_dataset(shop.store, RowFormat.CLASSIFICATION, {"test": [row, row, row]})
    dataset = factories.ready_dataset()
    dataset["status"]["revision"] |= revision.model_dump()
    here = World(factories.make_batch(**spec), job, dataset)
    here.settle()
    return here


def carry_out(here: World, shop: Shop, source: Path) -> int:
    """The newest attempt's pod, run in this process."""
    plan = [item for item in here.made if item["kind"] == "ConfigMap"][-1]
    (shop.root / "plan.json").write_text(plan["data"]["plan.json"])
    options = {"plan": shop.root / "plan.json", "store": shop.store.root, "source": source, "port": 0}
    options |= {"scratch": shop.root, "termination-log": shop.root / "log"}
    code = main([f"--{name}={value}" for name, value in options.items()])
    here.end(here.newest("batch"), (shop.root / "log").read_text(), code=code)
    here.settle()
    return code


def output_of(here: World, shop: Shop) -> tuple[list[Any], list[Any]]:
    found = here.status["output"]
    reference = StoredReference(digest=found["digest"], uri=found["uri"])
    return files_of(shop, reference)


def log_of(here: World, shop: Shop, attempt: int) -> str | None:
    """What an attempt has left in the store, where `kubectl finetune logs` looks."""
    name = attempt_name(here.raw["metadata"]["uid"], attempt)
    return shop.store.recorded(here.status["run"]["key"], attempt_path(name, LOG_FILE))


def test_a_split_goes_from_yaml_to_files(shop: Shop, adapter: StoredReference, tmp_path: Path) -> None:
    here = world_of(shop, adapter, sampling={"maxTokens": 4})
    assert carry_out(here, shop, tmp_path) == 0
    assert here.says("Ready").startswith("True Succeeded: 3 of 3 rows were answered, 0 failed")
    output, errors = output_of(here, shop)
    assert [line["custom_id"] for line in output] == ["test-0", "test-1", "test-2"]
    assert len({content(line) for line in output}) == 1
    assert (errors, here.status["output"]["generatedTokens"] > 0) == ([], True)


def test_bad_lines_are_refused_then_allowed_and_nothing_is_asked_twice(
    shop: Shop, adapter: StoredReference, tmp_path: Path
) -> None:
    lines = [chat(number) for number in range(6)]
    lines[3] = chat(3, temprature=1)
    text = write(tmp_path / "lines/a.jsonl", [*lines, "nonsense"]).read_text()
    here = world_of(shop, adapter, input={"jsonl": {"inline": {"jsonl": text}}}, maxErrorShare=0.2)
    assert carry_out(here, shop, tmp_path) == policy_of(FailureReason.REQUESTS_FAILED).exit_code
    assert here.says("Stalled").startswith("True RequestsFailed: maxErrorShare: 2 of 7 rows have no answer")
    assert "spec.input.jsonl.inline.jsonl line 4: " in here.says("Stalled")
    assert here.status["progress"]["rows"] == 7
    assert "RequestsFailed: maxErrorShare: 2 of 7 rows" in (log_of(here, shop, 1) or "")
    here.edit(maxErrorShare=0.5)
    here.settle()
    assert carry_out(here, shop, tmp_path) == 0
    assert "RequestsFailed" not in (log_of(here, shop, 2) or "RequestsFailed")
    found = here.status["output"]
    assert (found["rows"], found["succeeded"], found["failed"], found["resumedRows"]) == (7, 5, 2, 7)
    output, errors = output_of(here, shop)
    assert [line["custom_id"] for line in output] == [f"ask-{number}" for number in (0, 1, 2, 4, 5)]
    assert [line["error"]["code"] for line in errors] == ["invalid_request_error", "invalid_json_line"]
