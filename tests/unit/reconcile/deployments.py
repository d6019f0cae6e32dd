"""Lives of a ModelDeployment up to some point, and what its pods say."""

from typing import Any

from finetune_contract.proof import AdapterProof, ProofState, ProofStatus
from tests import factories
from tests.factories import Object, stage_result
from tests.unit.reconcile.world import World

HUB = {"huggingFace": {"repo": "org/model"}}

TWO = [{"name": name, "fineTuneJob": {"name": name}} for name in ("triage", "reply")]


def world(*others: Object, **spec: Any) -> World:
    here = World(factories.make_deployment(**spec), *others)
    here.settle()
    return here


def roll_out(here: World, ready: int | None = None) -> World:
    """The Deployment controller catches up."""
    item = here.find("Deployment", "support")
    assert item is not None
    replicas = here.raw["spec"].get("replicas", 1)
    item["status"] = {
        "observedGeneration": item["metadata"]["generation"],
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": replicas if ready is None else ready,
    }
    here.settle()
    return here


def states(here: World) -> dict[str, str]:
    return {adapter["name"]: adapter["state"] for adapter in here.status["adapters"]}


def staged(here: World, base: str = "b") -> World:
    here.end(here.newest("stage"), stage_result(None, base).to_json())
    here.settle()
    return here


def proof(here: World, state: ProofState, message: str, name: str = "triage") -> None:
    """The prober of the newest pod says something of an adapter."""
    found = next(each for each in here.status["adapters"] if each["name"] == name)
    each = AdapterProof(name=name, digest=found["digest"], state=state, message=message)
    here.proofs = {"uid-pod": ProofStatus(ready=False, message=message, adapters=(each,))}
    here.settle()
