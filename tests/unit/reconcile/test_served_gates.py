"""What a ModelDeployment takes of a job with a gate, what it refuses, and what it keeps."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.adapterfacts import AdapterFacts
from finetune_contract.results import ArtifactType
from finetune_operator.reconcile.observed import Reference
from tests import factories
from tests.factories import Object, digest, stored
from tests.unit.reconcile.deployments import HUB, roll_out, staged, states, world
from tests.unit.reconcile.world import World

TRIAGE = Reference("FineTuneJob", "triage")
WORDS = "ExactMatch 0.5 is not atLeast 0.9"


def artifact(letter: str, verdict: str | None = None, type_: ArtifactType = ArtifactType.ADAPTER) -> Object:
    found = {
        **stored(letter, "artifacts").model_dump(),
        "type": type_.value,
        "bytes": 1000,
        "base": stored("b").model_dump(),
        "run": letter * 64,
    }
    return {**found, "verdict": verdict} if verdict else found


def job(*made: Object, good: Object | None = None) -> Object:
    """A FineTuneJob that made these artifacts, the last of which its gate spoke of."""
    records = [
        {"key": each["run"], "outcome": "Succeeded", "artifactDigest": each["digest"], "artifact": each}
        for each in made
    ]
    rules = [{"outcome": "Failed", "message": WORDS}, {"outcome": "Passed", "message": "EvalLoss 1 is atMost 2"}]
    status: Object = {"phase": "GateFailed", "runs": records}
    status["gate"] = {"digest": made[-1]["digest"], "verdict": "Failed", "key": "k", "rules": rules}
    if good:
        status["artifact"] = good
    return factories.make_job(status=status)


A, BAD = artifact("a", "Passed"), artifact("c", "Failed")


def served(here: World) -> str | None:
    value = here.status["adapters"][0].get("digest")
    return None if value is None else str(value)


def put(here: World, other: Object | None) -> None:
    """The job changes, or goes."""
    here.others.pop(TRIAGE, None)
    if other is not None:
        here.others[TRIAGE] = other
    here.settle()


def test_an_artifact_whose_gate_failed_is_refused_with_the_rule_that_it_did_not_meet() -> None:
    here = world(job(BAD))
    assert states(here) == {"triage": "Pending"}
    assert here.says("AdaptersValid").startswith(f"False GateFailed: triage: {digest('c')} of FineTuneJob 'triage' ")
    assert f"failed its gate ({WORDS}); relax spec.gate of the job" in here.says("Stalled")
    assert here.says("Ready").startswith("False GateFailed: ")
    assert here.status["phase"] == "GateFailed"
    assert here.condition("Reconciling") is None
    assert here.children == {}
    put(here, job(artifact("c", "Passed"), good=artifact("c", "Passed")))
    roll_out(here)
    assert here.status["phase"] == "Serving"
    assert here.status["adapters"][0]["verdict"] == "Passed"


def test_one_that_is_not_decided_yet_is_waited_for() -> None:
    here = world(job(artifact("c", "Undecided")))
    assert here.says("Ready").startswith(
        "False AdapterPending: triage: the gate of FineTuneJob 'triage' has not decided"
    )
    assert here.condition("Stalled") is None


def test_a_newer_artifact_that_failed_is_not_even_noticed() -> None:
    here = roll_out(world(job(A, BAD, good=A)))
    assert here.status["phase"] == "Serving"
    assert served(here) == digest("a")


def test_what_is_served_stays_when_the_gate_is_tightened_or_the_job_goes() -> None:
    here = roll_out(world(job(A, good=A)))
    late = artifact("a", "Failed")
    for change in (job(late, good=late), None, factories.make_job()):
        put(here, change)
        assert here.status["phase"] == "Serving"
        assert served(here) == digest("a")
        assert here.status["adapters"][0]["verdict"] == "Passed"
    other = world(job(late, good=late))
    assert other.status["phase"] == "GateFailed", "who has not served it does not begin to"


def test_ignore_gate_serves_the_last_one_and_says_so() -> None:
    here = roll_out(world(job(A, BAD, good=A), ignoreGate=True))
    assert served(here) == digest("c")
    assert here.status["phase"] == "Serving"
    (adapter,) = here.status["adapters"]
    assert (adapter["verdict"], adapter["gateIgnored"]) == ("Failed", True)
    assert here.says("GateIgnored") == (
        f"True IgnoreGate: served by spec.ignoreGate although no gate was passed: triage: {digest('c')} (gate failed)"
    )
    assert [(event.type, event.reason) for event in here.events] == [("Warning", "GateIgnored")]
    good = artifact("c", "Passed")
    put(here, job(A, good, good=good))
    assert here.condition("GateIgnored") is None
    assert here.status["adapters"][0]["gateIgnored"] is False


def test_ignore_gate_is_not_said_where_nothing_is_ignored() -> None:
    here = roll_out(world(job(A, good=A), ignoreGate=True))
    assert here.condition("GateIgnored") is None
    assert here.events == []


def test_without_ignore_gate_the_good_one_is_served_again() -> None:
    here = roll_out(world(job(A, BAD, good=A), ignoreGate=True))
    here.edit(ignoreGate=False)
    here.settle()
    roll_out(here)
    assert served(here) == digest("a")
    assert here.condition("GateIgnored") is None
    assert here.status["phase"] == "Serving"


def test_without_ignore_gate_and_a_good_one_the_base_is_served_alone() -> None:
    here = roll_out(world(job(BAD), ignoreGate=True))
    here.edit(ignoreGate=False)
    here.settle()
    roll_out(here)
    assert served(here) is None
    assert here.status["phase"] == "GateFailed"
    assert here.condition("Available")["status"] == "True"  # type: ignore[index]


def pin(letter: str) -> dict[str, Any]:
    return {"adapters": [{"name": "triage", "fineTuneJob": {"name": "triage"}, "digest": digest(letter)}]}


def test_a_pinned_artifact_is_served_and_no_newer_one() -> None:
    old = artifact("e", "Passed")
    here = roll_out(world(job(old, A, good=A), **pin("e")))
    assert served(here) == digest("e")
    put(here, None)
    assert served(here) == digest("e")
    assert here.status["phase"] == "Serving"


def test_a_pinned_artifact_that_failed_is_refused_and_what_is_served_stays() -> None:
    here = roll_out(world(job(A, BAD, good=A)))
    here.edit(**pin("c"))
    roll_out(here)
    assert served(here) == digest("a")
    assert states(here) == {"triage": "Serving"}
    assert here.says("Ready").startswith("False GateFailed: triage: ")
    assert f"{digest('a')} is served on" in here.status["adapters"][0]["message"]
    here.edit(ignoreGate=True)
    here.settle()
    roll_out(here)
    assert served(here) == digest("c")
    assert here.status["phase"] == "Serving"


def test_a_pinned_artifact_that_nobody_knows_is_named_with_those_there_are() -> None:
    here = world(job(A, good=A), **pin("f"))
    assert here.says("Ready") == (
        "False AdapterPending: triage: spec.adapters[0].digest: FineTuneJob 'triage' tells of no artifact "
        f"{digest('f')}; it made {digest('a')}"
    )


def by_address(uri: str = "pvc://finetune-artifacts/artifacts/x") -> dict[str, Any]:
    adapter = {"name": "triage", "uri": uri, "digest": digest("9")}
    return {"adapters": [adapter], "baseModel": HUB, "ignoreGate": True}


def test_an_adapter_by_address_is_served_without_a_gate_and_says_so() -> None:
    here = roll_out(staged(world(**by_address())))
    assert here.status["phase"] == "Serving"
    assert here.says("GateIgnored").endswith(f"triage: {digest('9')} (no gate known)")


FACTS = AdapterFacts(rank=16, targets=("q_proj",), family="llama")


def described(here: World, **facts: Any) -> World:
    """The stage pod has read the adapter's files."""
    result = factories.stage_result(None, adapters=(FACTS.model_copy(update=facts),))
    here.end(here.newest("stage"), result.to_json())
    here.settle()
    return here


def test_an_adapter_by_address_is_described_and_so_served_by_any_engine() -> None:
    here = roll_out(described(world(**by_address(), engine={"type": "VLLM"}), rank=40))
    assert here.status["phase"] == "Serving"
    assert here.status["adapters"][0]["adapter"] == {
        "rank": 40,
        "targets": ["q_proj"],
        "family": "llama",
        "features": [],
    }
    item = here.find("Deployment", "support")
    assert item is not None
    assert "--max-lora-rank=64" in item["applied"]["spec"]["template"]["spec"]["containers"][0]["command"]
    (plan,) = [item for item in here.made if item["metadata"]["labels"]["finetune.dev/role"] == "stage"][:1]
    assert digest("9") in plan["data"]["plan.json"]


def test_one_that_the_engine_cannot_serve_is_refused_like_any_other() -> None:
    here = described(world(**by_address(), engine={"type": "TGI"}), rank=200)
    assert "its rank is 200" in here.says("AdaptersValid")
    assert here.find("Deployment", "support") is None


def test_another_adapter_by_address_is_described_while_the_first_serves() -> None:
    here = roll_out(described(world(**by_address(), engine={"type": "VLLM"})))
    more = [
        *here.raw["spec"]["adapters"],
        {"name": "b", "uri": "pvc://finetune-artifacts/artifacts/y", "digest": digest("8")},
    ]
    here.edit(adapters=more)
    here.settle()
    assert here.says("Ready").startswith("False Staging: ")
    assert here.condition("Available")["status"] == "True"  # type: ignore[index]
    here.end(here.newest("stage"), factories.stage_result(None, adapters=(FACTS, FACTS)).to_json())
    here.settle()
    roll_out(here)
    assert states(here) == {"triage": "Serving", "b": "Serving"}


def test_an_address_of_another_store_is_refused() -> None:
    here = staged(world(**by_address("pvc://elsewhere/artifacts/x")))
    roll_out(here)
    assert "spec.adapters[0].uri: pvc://elsewhere/artifacts/x is not in this object's store" in here.says("Ready")


@pytest.mark.parametrize("ignore", [False, True])
def test_a_whole_model_has_to_pass_too(ignore: bool) -> None:
    bad = artifact("e", "Failed", ArtifactType.MODEL)
    base = {"baseModel": {"fineTuneJob": {"name": "triage"}}, "adapters": []}
    here = world(job(bad), **base, ignoreGate=ignore)
    if not ignore:
        assert here.says("Ready").startswith("False GateFailed: spec.baseModel.fineTuneJob.name: ")
        assert here.status["phase"] == "GateFailed"
        assert here.jobs() == []
        good = {**bad, "verdict": "Passed"}
        put(here, job(good, good=good))
    roll_out(staged(here, "e"))
    assert here.status["phase"] == "Serving"
    assert (here.condition("GateIgnored") is not None) is ignore
    # What is served stays, whatever the gate says later.
    put(here, job(bad, good=bad))
    assert here.status["phase"] == "Serving"
    here.edit(ignoreGate=False)
    here.settle()
    roll_out(here)
    assert here.status["phase"] == ("GateFailed" if ignore else "Serving")


verdicts = st.sampled_from([None, "Passed", "Failed", "Undecided"])
artifacts = st.builds(artifact, st.sampled_from("acef"), verdicts)
made = st.lists(artifacts, min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.tuples(made, st.none() | artifacts), max_size=6))
def test_in_any_life_of_its_job_nothing_bad_is_taken_and_nothing_taken_is_lost(
    life: list[tuple[list[Object], Object | None] | None],
) -> None:
    here = world(factories.make_job())
    for step in life:
        before = served(here)
        put(here, job(*step[0], good=step[1]) if step else None)
        now = served(here)
        assert now is not None or before is None
        if now != before:
            assert step is not None
            known = [each for each in (*step[0], step[1]) if each and each["digest"] == now]
            assert any(each.get("verdict") in (None, "Passed") for each in known)
        assert here.condition("GateIgnored") is None
