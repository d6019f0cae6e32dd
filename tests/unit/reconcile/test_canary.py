"""A canary's life: tried beside what is served, then promoted or rolled back, in status alone."""

import copy
from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.proof import AdapterProof, ProofState, ProofStatus
from finetune_operator.reconcile.observed import Reference, Traffic
from tests.factories import Object, digest, finished_job, stamp
from tests.unit.reconcile.deployments import roll_out, states, world
from tests.unit.reconcile.world import World

TRIAGE = Reference("FineTuneJob", "triage")
NAME = "support-canary"
CANARY: Object = {"interval": "10m", "maxErrorRate": 0.1, "minRequests": 20, "replicas": 2}


def stable_world(**spec: Any) -> World:
    """Artifact a is served, whole and proven."""
    return roll_out(world(finished_job(), rollout={"canary": CANARY}, replicas=3, **spec))


def new_run(here: World, letter: str = "c") -> None:
    here.others[TRIAGE] = finished_job(artifact=letter)
    here.settle()


def digests(here: World, name: str = "support") -> list[str]:
    """What the plan of a Deployment's pods names."""
    item = here.find("Deployment", name)
    assert item is not None
    plan = item["metadata"]["labels"]["finetune.dev/plan"]
    (config_map,) = [each for each in here.made if each["metadata"]["name"].endswith(plan)][:1]
    return [letter for letter in "acdef" if digest(letter) in config_map["data"]["plan.json"]]


def catch_up(here: World, *, ready: bool = True) -> Object:
    """The Deployment controller catches up with the canary; answers one of its pods."""
    item = here.find("Deployment", NAME)
    assert item is not None
    count = item["applied"]["spec"]["replicas"]
    item["status"] = {
        "observedGeneration": item["metadata"]["generation"],
        "replicas": count,
        "updatedReplicas": count,
        "readyReplicas": count if ready else 0,
    }
    pod = here.pod(item)
    here.settle()
    return pod


def counts(here: World, requests: int, errors: int = 0) -> None:
    pod = here.children["Pod"][-1]
    here.traffic = {pod["metadata"]["uid"]: Traffic(requests, errors)}
    here.settle()


def end_interval(here: World) -> None:
    here.later(601)
    here.settle()


def test_the_first_artifact_needs_no_canary() -> None:
    here = stable_world()
    assert here.find("Deployment", NAME) is None
    assert here.status["phase"] == "Serving"
    assert here.status["rollout"]["stable"]["adapters"][0]["digest"] == digest("a")


def test_a_new_artifact_is_tried_by_pods_of_its_own_while_the_old_one_serves() -> None:
    here = stable_world()
    before = copy.deepcopy(here.find("Deployment", "support"))
    new_run(here)
    assert here.find("Deployment", "support") == before
    assert (digests(here), digests(here, NAME)) == (["a"], ["c"])
    item = here.find("Deployment", NAME)
    assert item is not None
    spec = item["applied"]["spec"]
    assert spec["replicas"] == 2
    service = here.find("Service", NAME)
    assert service is not None
    assert service["applied"]["spec"]["selector"] == spec["selector"]["matchLabels"]
    main = here.find("Service", "support")
    assert main is not None
    assert main["applied"]["spec"]["selector"]["finetune.dev/role"] == "serve", "else it would get all requests, too"
    assert spec["template"]["metadata"]["labels"]["finetune.dev/role"] == "canary"
    assert here.status["phase"] == "Canary"
    assert here.says("Ready").startswith(f"False Canary: triage {digest('c')}: Proving: ")
    assert here.says("Available").startswith("True")
    assert states(here) == {"triage": "Loading"}


def test_one_that_holds_is_promoted() -> None:
    here = stable_world()
    new_run(here)
    catch_up(here)
    counts(here, 100, 10)
    assert here.says("Ready") == f"False Canary: triage {digest('c')}: proven; 10 of 100 requests have failed so far"
    assert here.act().wake_after == 600
    here.later(599)
    here.settle()
    assert digests(here) == ["a"], "its time is not over"
    end_interval(here)
    assert digests(here) == ["c"]
    assert here.find("Deployment", NAME) is None
    assert here.find("Service", NAME) is None
    assert [event.reason for event in here.events] == ["Promoted"]
    assert "canary" not in here.status["rollout"]
    roll_out(here)
    assert here.status["phase"] == "Serving"
    assert states(here) == {"triage": "Serving"}
    assert here.says("Ready").startswith("True Serving")


@pytest.mark.parametrize("state", [ProofState.INERT, ProofState.INVALID])
def test_one_that_fails_its_proof_is_rolled_back_at_once_and_for_good(state: ProofState) -> None:
    here = stable_world()
    before = copy.deepcopy(here.find("Deployment", "support"))
    new_run(here)
    pod = catch_up(here, ready=False)
    proof = AdapterProof(name="triage", digest=digest("c"), state=state, message="it answers like something else")
    here.proofs = {pod["metadata"]["uid"]: ProofStatus(ready=False, adapters=(proof,))}
    here.settle()
    here.proofs = {}
    here.later(3600)
    here.settle()
    assert here.find("Deployment", NAME) is None
    assert here.find("Deployment", "support") == before
    assert here.status["phase"] == "RolledBack"
    assert here.says("Stalled").startswith(f"True RolledBack: Adapter{state}: adapter triage is {state}: it answers")
    assert here.says("Available").startswith("True")
    assert states(here) == {"triage": "RolledBack"}
    assert [event.reason for event in here.events] == ["RolledBack"], "told once"
    (given_up,) = here.status["rollout"]["rolledBack"]
    assert given_up["reason"] == f"Adapter{state}"


def rolled_back(here: World, letter: str = "c") -> World:
    new_run(here, letter)
    catch_up(here)
    counts(here, 20, 3)
    return here


def test_one_whose_requests_fail_is_rolled_back_before_its_time_is_over() -> None:
    here = stable_world()
    new_run(here)
    catch_up(here)
    counts(here, 19, 19)
    assert here.status["phase"] == "Canary", "too few to tell"
    counts(here, 20, 3)
    assert here.status["phase"] == "RolledBack"
    assert "ErrorRate: 3 of 20 requests failed; spec.rollout.canary.maxErrorRate allows 0.1" in here.says("Ready")
    assert digests(here) == ["a"]


def test_the_end_of_the_interval_judges_few_requests_too() -> None:
    here = stable_world()
    new_run(here)
    catch_up(here)
    counts(here, 4, 1)
    end_interval(here)
    assert here.status["phase"] == "RolledBack"


def test_nothing_is_promoted_while_nobody_has_counted_or_it_is_not_ready() -> None:
    here = stable_world()
    new_run(here)
    catch_up(here)
    end_interval(here)
    assert here.status["phase"] == "Canary"
    item = here.find("Deployment", NAME)
    assert item is not None
    item["status"]["readyReplicas"] = 1
    counts(here, 4)
    assert here.status["phase"] == "Canary"
    item["status"]["readyReplicas"] = 2
    here.settle()
    assert digests(here) == ["c"]


@pytest.mark.parametrize(("seconds", "is_given_up"), [(-60, False), (60, True)], ids=["before", "after"])
def test_a_server_that_ends_after_its_proof_is_rolled_back(seconds: int, is_given_up: bool) -> None:
    here = stable_world()
    new_run(here)
    pod = catch_up(here)
    ended = {"terminated": {"exitCode": 1, "finishedAt": stamp(here.now + timedelta(seconds=seconds))}}
    engine = {"name": "engine", "restartCount": 1, "state": {"running": {}}, "lastState": ended}
    pod["status"]["containerStatuses"] = [engine]
    here.settle()
    assert ("CanaryCrashed" in here.says("Ready")) is is_given_up
    assert here.status["phase"] == ("RolledBack" if is_given_up else "Canary")


def test_what_the_pods_of_an_earlier_canary_counted_does_not_count() -> None:
    here = stable_world()
    new_run(here)
    catch_up(here)
    counts(here, 19, 19)
    new_run(here, "d")
    counts(here, 100, 100)
    assert here.status["phase"] == "Canary"
    assert here.status["rollout"]["canary"]["requests"] == 0


def test_one_that_never_gets_ready_is_rolled_back() -> None:
    here = stable_world()
    new_run(here)
    item = here.find("Deployment", NAME)
    assert item is not None
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    item["status"] = {"observedGeneration": item["metadata"]["generation"], "conditions": [late]}
    here.settle()
    assert here.says("Stalled").startswith("True RolledBack: CanaryNotReady: ")


def test_a_later_run_is_tried_anew_after_a_rollback_and_the_bad_one_stays_out() -> None:
    here = rolled_back(stable_world())
    new_run(here, "d")
    assert digests(here, NAME) == ["d"]
    assert here.condition("Stalled") is None
    here.traffic = {}
    catch_up(here)
    counts(here, 4)
    end_interval(here)
    roll_out(here)
    assert here.status["phase"] == "Serving"
    new_run(here, "c")
    assert here.status["phase"] == "RolledBack"
    assert digests(here) == ["d"]
    new_run(here, "d")
    roll_out(here)
    assert here.status["phase"] == "Serving"


def test_a_newer_run_replaces_the_one_that_is_tried() -> None:
    here = stable_world()
    new_run(here)
    catch_up(here)
    counts(here, 4)
    assert "provenAt" in here.status["rollout"]["canary"]
    here.later(500)
    new_run(here, "d")
    assert digests(here, NAME) == ["d"]
    assert "provenAt" not in here.status["rollout"]["canary"]
    end_interval(here)
    assert digests(here) == ["a"]


def test_another_engine_image_is_tried_too_while_the_old_one_is_kept_up() -> None:
    here = stable_world()
    here.edit(engine={"image": "server:2"}, replicas=4)
    here.settle()
    images = {}
    for name in ("support", NAME):
        item = here.find("Deployment", name)
        assert item is not None
        images[name] = item["applied"]["spec"]["template"]["spec"]["containers"][0]["image"]
        assert item["applied"]["spec"]["replicas"] == {"support": 4, NAME: 2}[name]
    assert images == {"support": "finetune-trainer", NAME: "server:2"}


def test_the_spec_is_never_written_and_a_deleted_canary_comes_back() -> None:
    here = stable_world()
    new_run(here)
    here.children["Deployment"] = []
    here.settle()
    assert (digests(here), digests(here, NAME)) == (["a"], ["c"])


def test_taking_the_canary_out_of_the_spec_rolls_out_what_was_rolled_back() -> None:
    here = rolled_back(stable_world())
    here.edit(rollout={})
    here.settle()
    assert digests(here) == ["c"]
    assert "rollout" not in here.status
    roll_out(here)
    assert here.status["phase"] == "Serving"


def test_ten_rollbacks_are_remembered() -> None:
    here = stable_world()
    letters = "0123456789ef"
    for letter in letters:
        rolled_back(here, letter)
        here.traffic = {}
    assert len(here.status["rollout"]["rolledBack"]) == 10
