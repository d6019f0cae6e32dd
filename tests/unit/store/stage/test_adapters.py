"""Adapters that are named by address: described, or refused."""

from finetune_contract.adapterfacts import AdapterFeature
from finetune_contract.failure import FailureReason
from finetune_contract.staging import BaseSource
from tests.unit.store.stage.pods import MODEL, Pod, fails, put_adapter, write


def test_adapters_named_by_address_are_described(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL | {"config.json": '{"model_type": "llama"}'})
    base = pod.stage(BaseSource(volume="tiny"))[1].base
    assert base is not None
    plain, dora = put_adapter(pod), put_adapter(pod, 16, base.digest, use_dora=True)
    code, result = pod.stage(BaseSource(volume="tiny"), None, plain, dora)
    assert (code, result.base) == (0, base)
    assert [(facts.rank, facts.family) for facts in result.adapters] == [(8, "llama"), (16, "llama")]
    assert [facts.features for facts in result.adapters] == [(), (AdapterFeature.DORA,)]


def test_very_many_adapters_fit_a_result(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL)
    adapters = [put_adapter(pod, rank) for rank in range(1, 33)]
    code, result = pod.stage(BaseSource(volume="tiny"), None, *adapters)
    assert (code, [facts.rank for facts in result.adapters]) == (0, list(range(1, 33)))


def test_an_adapter_of_another_base_is_refused_with_both_digests(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL)
    answer = pod.stage(BaseSource(volume="tiny"), None, put_adapter(pod, base="sha256:" + "f" * 64))
    fails(answer, FailureReason.INVALID_PLAN, "was trained from sha256:ffff", "spec.baseModel is sha256:")


def test_what_is_no_adapter_is_refused(pod: Pod) -> None:
    write(pod.root / "source/tiny", MODEL)
    model = pod.stage(BaseSource(volume="tiny"))[1].base
    assert model is not None
    fails(pod.stage(BaseSource(volume="tiny"), None, model), FailureReason.INVALID_PLAN, "is no adapter")
