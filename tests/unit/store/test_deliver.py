"""Adapters delivered to a serving pod."""

from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.manifest import StoredKind
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_store.__main__ import main
from finetune_store.deliver import deliver
from finetune_store.store import Store
from tests.unit.store.conftest import Publish


class Pod:
    """Runs `python -m finetune_store deliver`."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store = store
        self.root = root
        self.adapters = root / "adapters"
        self.adapters.mkdir()

    def deliver(self, base: StoredReference, **adapters: StoredReference) -> tuple[int, str]:
        served = tuple(ServedAdapter(name=name, artifact=ref) for name, ref in adapters.items())
        plan = ServingPlan(name="support", namespace="team-a", base=base, adapters=served, claim=self.store.claim)
        (self.root / "plan.json").write_text(plan.to_json())
        options = {"plan": "plan.json", "store": "store", "adapters": "adapters", "termination-log": "log"}
        code = main(["deliver", *(f"--{option}={self.root / name}" for option, name in options.items())])
        return code, (self.root / "log").read_text()


@pytest.fixture
def pod(store: Store, tmp_path: Path) -> Pod:
    return Pod(store, tmp_path)


@pytest.fixture
def base(publish: Publish) -> StoredReference:
    return publish()


@pytest.fixture
def triage(publish: Publish) -> StoredReference:
    return publish({"adapter_model.safetensors": "lora", "extra/probe.json": "{}"}, StoredKind.ARTIFACT)


def test_adapters_are_delivered_by_name_and_digest(pod: Pod, base: StoredReference, triage: StoredReference) -> None:
    assert pod.deliver(base, triage=triage) == (0, "")
    delivered = pod.adapters / "triage" / triage.digest.removeprefix("sha256:")
    files = sorted(path.relative_to(delivered).as_posix() for path in delivered.rglob("*") if path.is_file())
    assert files == ["adapter_model.safetensors", "extra/probe.json", "manifest.json"]
    assert [path.name for path in delivered.parent.iterdir()] == [delivered.name]


def test_delivering_again_changes_nothing_and_mends_what_is_torn(
    pod: Pod, base: StoredReference, triage: StoredReference
) -> None:
    pod.deliver(base, triage=triage)
    weights = next(pod.adapters.glob("triage/*/adapter_model.safetensors"))
    inode = weights.stat().st_ino
    assert pod.deliver(base, triage=triage) == (0, "")
    assert weights.stat().st_ino == inode
    weights.write_text("lo")
    assert pod.deliver(base, triage=triage) == (0, "")
    assert weights.read_text() == "lora"


@pytest.mark.parametrize("damaged", ["config.json", "adapter_model.safetensors"])
def test_damage_in_the_store_is_named(pod: Pod, base: StoredReference, triage: StoredReference, damaged: str) -> None:
    next(pod.store.root.glob(f"*/*/{damaged}")).write_text("bitrot")
    code, log = pod.deliver(base, triage=triage)
    failure = Failure.model_validate_json(log)
    assert failure.reason is FailureReason.CHECKSUM_MISMATCH
    assert code == policy_of(failure.reason).exit_code
    assert damaged in failure.message
    assert not list(pod.adapters.iterdir())


def test_a_name_that_is_a_path_is_refused(pod: Pod, base: StoredReference, triage: StoredReference) -> None:
    code, log = pod.deliver(base, **{"../triage": triage})
    assert Failure.model_validate_json(log).message == "spec.adapters: '../triage' is not a model name"
    assert code == 64


def test_the_adapter_of_a_merged_model_is_delivered_for_its_probe(
    pod: Pod, base: StoredReference, triage: StoredReference
) -> None:
    adapter = ServedAdapter(name="triage", artifact=triage)
    plan = ServingPlan(name="triage", namespace="team-a", base=base, merged=adapter, claim=pod.store.claim)
    deliver(plan, pod.store, pod.adapters)
    assert (pod.adapters / "triage" / triage.digest.removeprefix("sha256:") / "extra/probe.json").is_file()
