"""The prober against the real server: adapters that are live, swapped, ignored, inert, and an engine that goes away."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.proof import ProofState, ProofStatus
from finetune_contract.serving import EngineType
from tests.trainer.server.running import Running, proving, serving, wait_until
from tests.trainer.server.tiny import Shop


def states(prober: Running) -> dict[str, ProofState]:
    status = ProofStatus.model_validate_json(prober.get("/status").text)
    return {adapter.name: adapter.state for adapter in status.adapters}


def test_live_adapters_make_the_pod_ready(shop: Shop, adapters: dict[str, StoredReference], server: Running) -> None:
    plan = shop.write_plan(shop.plan(adapters), "main")
    with proving(plan, shop.adapters, server.url) as prober:
        wait_until(lambda: prober.answers("/ready"), 20, "the prober is ready")

        assert states(prober) == dict.fromkeys(adapters, ProofState.SERVING)
        assert prober.metric("finetune_prober_ready") == 1
        assert prober.metric('finetune_prober_adapter_state{adapter="triage",state="Serving"}') == 1
        assert prober.metric('finetune_prober_proof_seconds{adapter="triage"}') > 0


def test_tgis_routes_prove_the_same(shop: Shop, adapters: dict[str, StoredReference], server: Running) -> None:
    """Our own server answers `/generate` as TGI does, so the proof by that route runs here, too."""
    plan = shop.write_plan(shop.plan(adapters, engine=EngineType.TGI), "tgi")
    with proving(plan, shop.adapters, server.url) as prober:
        wait_until(lambda: prober.answers("/ready"), 20, "the prober is ready")

        assert states(prober) == dict.fromkeys(adapters, ProofState.SERVING)


@pytest.fixture(scope="module")
def faulty(shop: Shop, adapters: dict[str, StoredReference]) -> Iterator[tuple[Path, Running]]:
    """An engine that loads other files than the plan asks for, as the prober's own directory does not."""
    everything = {**adapters, "zero": shop.publish(7, scale=0)}
    plan = shop.write_plan(shop.plan(everything), "faulty")
    elsewhere = shop.root / "elsewhere"
    shutil.copytree(shop.adapters, elsewhere)
    for name, files_of in (("triage", "docs"), ("docs", "zero")):
        target = elsewhere / name / everything[name].digest.removeprefix("sha256:")
        shutil.rmtree(target)
        shutil.copytree(shop.adapter_path(files_of, everything[files_of]), target)
    with serving(plan, shop.root / "store", elsewhere) as running:
        yield plan, running


def test_wrong_adapters_keep_the_pod_unready(shop: Shop, faulty: tuple[Path, Running]) -> None:
    plan, engine = faulty
    with proving(plan, shop.adapters, engine.url) as prober:
        wait_until(lambda: ProofState.LOADING not in states(prober).values(), 20, "every adapter is judged")

        assert states(prober) == {
            "triage": ProofState.INVALID,  # the engine has another adapter's weights under its name
            "tickets-v1.2": ProofState.SERVING,
            "docs": ProofState.INERT,  # the engine does not apply it
            "zero": ProofState.INERT,  # training changed nothing
        }
        answer = prober.get("/ready")
        assert answer.status_code == 503
        message = ProofStatus.model_validate_json(answer.text).message
        assert message.startswith("adapter triage is Invalid: the engine answers neither"), message
        assert prober.metric("finetune_prober_ready") == 0


def test_a_lost_engine_is_noticed(shop: Shop, faulty: tuple[Path, Running]) -> None:
    """The last test of its server: a base-only plan is ready with the engine and unready without."""
    _, engine = faulty
    with proving(shop.write_plan(shop.plan({}), "bare"), shop.adapters, engine.url) as prober:
        wait_until(lambda: prober.answers("/ready"), 20, "the prober is ready")
        engine.process.kill()
        wait_until(lambda: prober.get("/ready").status_code == 503, 10, "the prober notices")

        assert "no connection to the engine" in prober.get("/ready").text
