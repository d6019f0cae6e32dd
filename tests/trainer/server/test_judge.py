"""The judge and endpoint baselines against a real OpenAI-compatible server: our own engine with another model.

The model is trained here on a handful of questions, until it answers them by heart.
"""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import EndpointPlan, JudgePlan
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.serving import ServingPlan
from finetune_store.store import Store
from finetune_trainer.evaluate.asking import Endpoint
from finetune_trainer.evaluate.endpoints import answers_of, endpoint_of
from finetune_trainer.train.render import Example
from tests.trainer import runs, tiny
from tests.trainer.judging import Judged, judged_by
from tests.trainer.server.running import Running, serving, wait_until

TEMPLATE = "{a} or {b}"
SAID = {
    "fruit or metal": "[[A]]", "metal or fruit": "[[B]]",
    "fruit or animal": "[[B]]", "animal or fruit": "[[A]]",
    "animal or metal": "[[A]]", "metal or animal": "[[A]]",
    "iron or tin": "[[C]]", "tin or iron": "[[C]]",
    "horse or goose": "who knows", "goose or horse": "who knows",
}  # fmt: skip
"""What the judge has learnt: fruit over metal, animal over fruit, of animal and metal the first, and so on."""


def _judge_in(store: Store) -> StoredReference:
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in SAID.items()
    ]
    dataset = tiny.publish_dataset(store, RowFormat.MESSAGES, {"train": rows})
    hyperparameters = {"epochs": 80, "learning_rate": 3e-3, "global_batch_size": 10}
    plan = tiny.make_plan(tiny.publish_model(store), dataset, adapter=None, hyperparameters=hyperparameters)
    return runs.reference_to(runs.run(store, plan))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StoredReference]:
    root = tmp_path_factory.mktemp("judge")
    (root / "store").mkdir()
    return root, _judge_in(Store(root / "store", tiny.CLAIM))


@pytest.fixture(scope="module")
def server(place: tuple[Path, StoredReference]) -> Iterator[Running]:
    """One answer at a time, one more may wait: whoever comes third gets 429."""
    root, model = place
    plan = ServingPlan(
        name="judge", namespace="test", base=model, claim=tiny.CLAIM, max_batch_size=1, max_queue=1
    )  # fmt: skip
    path = root / "judge.json"
    path.write_text(plan.to_json())
    with serving(path, root / "store", root / "adapters") as running:
        yield running


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "_first_wait", 0.01)


def judged(server: Running, *pairs: tuple[str, str], **changes: Any) -> Judged:
    document = {
        "endpoint": f"{server.url}/v1", "model": "judge", "prompt_template": TEMPLATE, "max_tokens": 8, "retries": 2,
        "concurrency": 1, **changes,
    }  # fmt: skip
    examples = [Example(prompt="which?", completion="", answer="") for _ in pairs]
    answers = {"Tuned": [ours for ours, _ in pairs], "ZeroShot": [theirs for _, theirs in pairs]}
    return judged_by(JudgePlan(**document), examples, answers)


def test_verdicts_count_where_both_orders_agree(server: Running) -> None:
    found, use = judged(
        server, ("fruit", "metal"), ("fruit", "animal"), ("animal", "metal"), ("iron", "tin"), ("tin", "tin")
    )
    assert found.words["ZeroShot"] == ["Tuned", "Baseline", "Inconsistent", "Tie", "Tie"]
    (judgement,) = found.judgements
    assert (judgement.wins, judgement.losses, judgement.ties, judgement.inconsistent) == (1, 1, 2, 1)
    assert judgement.win_rate == 0.5
    assert (use.requests, use.retries, use.nonsense) == (8, 0, 0)


def test_nonsense_is_asked_again_and_then_ends_it(server: Running) -> None:
    pairs = [("horse", "goose"), *[("fruit", "metal")] * 9]
    found, use = judged(server, *pairs, max_failed_share=0.1)
    assert (found.judgements[0].failed, found.judgements[0].wins, use.nonsense) == (1, 9, 3)
    with pytest.raises(FineTuneError, match="gave no verdict on 1 of 1 rows after 2 retries each") as caught:
        judged(server, *pairs, max_failed_share=0.05)
    assert caught.value.reason is FailureReason.EVALUATION_FAILED
    assert "no verdict in 'who knows'" in str(caught.value)


def test_a_busy_server_is_asked_again_when_it_says(server: Running) -> None:
    refused = server.metric('tgi_request_failure{err="overloaded"')
    found, use = judged(server, *[("fruit", "metal")] * 12, concurrency=12, retries=20)
    assert found.judgements[0].wins == 12
    assert use.retries > 0
    assert server.metric('tgi_request_failure{err="overloaded"') - refused == use.retries


def test_a_server_that_stops_answering_ends_it_and_one_that_wakes_up_in_time_does_not(server: Running) -> None:
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(FineTuneError, match="ReadTimeout"):
            judged(server, ("fruit", "metal"), timeout_seconds=0.3, retries=1)
        result: list[Judged] = []
        asking = threading.Thread(
            target=lambda: result.append(judged(server, ("fruit", "metal"), timeout_seconds=1, retries=20))
        )
        asking.start()
    finally:
        server.process.send_signal(signal.SIGCONT)
    asking.join(60)
    assert result[0].found.judgements[0].wins == 1
    wait_until(lambda: server.metric("tgi_batch_current_size") == 0, 30, "it has done what it was asked meanwhile")


def test_a_model_that_it_does_not_have_is_told_at_once(server: Running) -> None:
    with pytest.raises(FineTuneError, match="knows no model 'other'"):
        judged(server, ("fruit", "metal"), model="other")


def test_it_answers_as_a_baseline(server: Running) -> None:
    plan = EndpointPlan(url=f"{server.url}/v1", model="judge", concurrency=2, retries=20)
    turns = [[{"role": "user", "content": asked}] for asked in SAID]
    with endpoint_of("hosted", plan, 8) as endpoint:
        assert answers_of("hosted", plan, endpoint, turns) == list(SAID.values())
        use = endpoint.use("hosted")
    assert (use.system, use.requests - use.retries) == ("hosted", len(SAID))
