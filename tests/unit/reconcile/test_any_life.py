"""Whatever happens, in whatever order: passes come to an end, each status fits the CRD, a success is never undone."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.evaluating import EvaluationResult
from finetune_contract.exporting import ExportResult
from finetune_contract.failure import FailureReason, policy_of
from finetune_contract.preflight import Fit, PreflightResult
from finetune_contract.results import ResolveResult
from finetune_operator.reconcile.endings import pods_of
from tests import factories
from tests.factories import Object, dataset_result, failed_training, stage_result, stored, training_result
from tests.unit.reconcile.world import World

KEYS = {16: "1" * 64, 8: "2" * 64}
"""By the adapter's rank: the edit that makes another run."""


def rank_of(here: World) -> int:
    """What the spec asks for now."""
    rank: int = here.raw["spec"].get("adapter", {}).get("rank", 16)
    return rank


def _unfinished(here: World) -> Object | None:
    return next((job for job in reversed(here.jobs()) if not (job.get("status") or {}).get("conditions")), None)


def _result(here: World, job: Object) -> str:
    """What the pod leaves, as the store is shared: a run that has succeeded is found there."""
    marks = job["metadata"]["labels"]
    if marks["finetune.dev/role"] == "prepare":
        return dataset_result().to_json()
    rank = rank_of(here)
    if marks["finetune.dev/role"] == "stage":
        key = KEYS[rank]
        outcome = training_result(key) if key in here.store else None
        return stage_result(key, outcome=outcome).to_json()
    if marks["finetune.dev/role"] == "resolve":
        key = here.status["run"]["key"]
        return ResolveResult(outcome=training_result(key) if key in here.store else None).to_json()
    if marks["finetune.dev/role"] == "preflight":
        return PreflightResult(verdict=Fit.FITS, predicted_peak_bytes=1).to_json()
    if marks["finetune.dev/role"] == "evaluate":
        return EvaluationResult().to_json()
    if marks["finetune.dev/role"] == "export":
        return ExportResult(**stored("e", "exports").model_dump()).to_json()
    key = next(key for key in KEYS.values() if key.startswith(marks["finetune.dev/run"]))
    here.store.add(key)
    return training_result(key, int(marks["finetune.dev/attempt"])).to_json()


def succeed(here: World) -> None:
    job = _unfinished(here)
    if job:
        here.end(job, _result(here, job))


def fail(reason: FailureReason) -> Callable[[World], None]:
    def act(here: World) -> None:
        job = _unfinished(here)
        if job:
            here.end(job, "", code=policy_of(reason).exit_code or 1)

    return act


def evict(here: World) -> None:
    job = _unfinished(here)
    if job:
        here.end(job, status=factories.evicted())


def end_unseen(here: World) -> None:
    job = _unfinished(here)
    if job:
        factories.ended(job, complete=False, now=here.now)


def hinder(here: World) -> None:
    job = _unfinished(here)
    if job:
        here.pod(job, **factories.unschedulable())


def edit_train(here: World) -> None:
    here.edit(adapter={"rank": 8 if rank_of(here) == 16 else 16})


def edit_operational(here: World) -> None:
    here.edit(retries={"limit": here.raw["metadata"]["generation"] % 4})


def pause(here: World) -> None:
    here.edit(suspend=not here.raw["spec"].get("suspend", False))


def ask_again(here: World) -> None:
    here.edit(rerun=f"token-{here.raw['metadata']['generation'] % 3}")


def edit_limits(here: World) -> None:
    here.edit(limits={"duration": ("1m", "5m", "100h")[here.raw["metadata"]["generation"] % 3]})


def edit_evaluation(here: World) -> None:
    here.edit(evaluation={"maxRows": here.raw["metadata"]["generation"]})


def edit_preflight(here: World) -> None:
    here.edit(preflight=("Enforce", "Warn", "Disabled")[here.raw["metadata"]["generation"] % 3])


def tidy(here: World) -> None:
    here.edit(ttlAfterFinished="60s")


def delete_jobs(here: World) -> None:
    here.children["Job"] = []


def delete_everything(here: World) -> None:
    here.children = {}


def wipe(here: World) -> None:
    here.wipe()


def wait(here: World) -> None:
    here.later(61)


def slow_deletions(here: World) -> None:
    here.deletions_happen = not here.deletions_happen
    if here.deletions_happen:
        for kind, items in here.children.items():
            here.children[kind] = [item for item in items if "deletionTimestamp" not in item["metadata"]]


def admit(here: World) -> None:
    """Kueue lets a Job go on."""
    job = _unfinished(here)
    if job and job["spec"].get("suspend"):
        job["spec"]["suspend"] = False
        here.pod(job)


def preempt(here: World) -> None:
    """Kueue suspends a Job, and its pod ends with or without a checkpoint."""
    job = _unfinished(here)
    if job and job["spec"].get("suspend") is False:
        job["spec"]["suspend"] = True
        pod = pods_of(job, here.children["Pod"])[-1]
        pod["metadata"]["deletionTimestamp"] = factories.stamp(here.now)
        step = int(here.now.timestamp()) % 50
        result = failed_training(
            here.status["run"]["key"], 1, FailureReason.PREEMPTED, step=step, checkpoint_step=step or None
        )
        pod["status"] = factories.terminated(result.to_json(), code=78, now=here.now)


def edit_queue(here: World) -> None:
    here.edit(scheduling={"queueName": f"team-{here.raw['metadata']['generation'] % 3}"})


def edit_no_queue(here: World) -> None:
    here.edit(scheduling={})


def edit_exports(here: World) -> None:
    wanted: tuple[list[Object], ...] = ([], [{"type": "MergedModel"}], [{"type": "GGUF"}, {"type": "MergedModel"}])
    here.edit(exports=wanted[here.raw["metadata"]["generation"] % 3])


ACTIONS = [
    edit_exports,
    succeed,
    succeed,
    fail(FailureReason.INVALID_PLAN),
    fail(FailureReason.TRAINER_CRASHED),
    evict,
    end_unseen,
    hinder,
    edit_train,
    edit_operational,
    delete_jobs,
    delete_everything,
    wipe,
    wait,
    slow_deletions,
]
JOB_ACTIONS = [*ACTIONS, pause, ask_again, edit_limits, edit_evaluation, tidy]  # fmt: skip


def live(here: World, actions: list[Callable[[World], None]]) -> None:
    here.settle()
    for action in actions:
        action(here)
        here.settle()


def finish(here: World) -> None:
    """Nothing bad happens any more, and somebody edits the spec: the resource gets ready."""
    if not here.deletions_happen:
        slow_deletions(here)
    more = {"suspend": False, "limits": {}} if here.raw["kind"] == "FineTuneJob" else {}
    here.edit(resources={"requests": {"cpu": "1"}}, **more)
    for _ in range(12):
        here.settle()
        here.later(61)
        succeed(here)
    here.settle()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(JOB_ACTIONS), max_size=12))
def test_any_life_of_a_job_can_end_well(actions: list[Callable[[World], None]]) -> None:
    here = World(factories.make_job(), factories.ready_dataset())
    live(here, actions)
    finish(here)
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["run"] == here.status["run"]["key"] == KEYS[rank_of(here)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*ACTIONS, admit, admit, preempt, preempt, edit_queue, edit_no_queue]), max_size=16))
def test_any_life_of_a_queued_job_can_end_well(actions: list[Callable[[World], None]]) -> None:
    here = World(factories.make_job(scheduling={"queueName": "team"}), factories.ready_dataset())
    live(here, actions)
    finish(here)
    assert here.status["phase"] == "Succeeded"
    assert "queue" not in here.status


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*JOB_ACTIONS, edit_preflight, edit_preflight]), max_size=12))
def test_any_life_of_a_job_with_preflights_can_end_well(actions: list[Callable[[World], None]]) -> None:
    here = World(factories.make_job(preflight="Enforce"), factories.ready_dataset())
    live(here, actions)
    finish(here)
    assert here.status["phase"] == "Succeeded"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([action for action in ACTIONS if action is not edit_train]), max_size=12))
def test_any_life_of_a_dataset_can_end_well(actions: list[Callable[[World], None]]) -> None:
    here = World(factories.make_dataset())
    live(here, actions)
    finish(here)
    assert here.status["phase"] == "Ready"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([action for action in JOB_ACTIONS if action is not edit_train]), max_size=12))
def test_any_life_of_a_success_trains_no_more(actions: list[Callable[[World], None]]) -> None:
    here = World(factories.make_job(), factories.ready_dataset())
    live(here, [succeed, succeed])
    assert here.status["phase"] == "Succeeded"
    trained = _trained(here)
    for action in actions:
        # Other Jobs may run again, to look the run up or to measure it; they do not fail here.
        (succeed if action in ACTIONS[2:7] else action)(here)
        here.settle()
    assert _trained(here) == trained


def _trained(here: World) -> list[str]:
    others = ("stage", "resolve", "evaluate", "export", "preflight")
    return [name for name in here.created if not any(role in name for role in others)]


def edit_gate(here: World) -> None:
    """`training_result` measures ExactMatch 0.5: a gate that it passes, one that it fails, or none."""
    bound = (0.4, 0.9, None)[here.raw["metadata"]["generation"] % 3]
    here.raw["spec"].pop("gate", None)
    here.edit(**({"gate": {"rules": [{"metric": "ExactMatch", "atLeast": bound}]}} if bound else {}))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*ACTIONS, edit_gate, edit_gate, edit_gate, ask_again, pause]), max_size=12))
def test_in_any_life_only_what_nothing_speaks_against_becomes_the_artifact(
    actions: list[Callable[[World], None]],
) -> None:
    evaluation = {"metrics": ["ExactMatch"], "baselines": ["ZeroShot"]}
    here = World(factories.make_job(evaluation=evaluation), factories.ready_dataset())
    here.settle()
    for action in actions:
        before = here.status.get("artifact")
        action(here)
        here.settle()
        artifact = here.status.get("artifact")
        if artifact is None:
            assert before is None or action is wipe, "an artifact is never taken away"
        elif before is None or before["digest"] != artifact["digest"]:
            assert artifact.get("verdict") in (None, "Passed")
    here.raw["spec"].pop("gate", None)
    finish(here)
    assert here.status["phase"] == "Succeeded"
    assert here.status["artifact"]["run"] == here.status["run"]["key"]
