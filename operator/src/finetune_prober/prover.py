"""The proof's course: files, then engine, then every adapter's answers; afterwards only the engine's health."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import PROBE_FILE
from finetune_contract.proof import AdapterProof, ProofState, ProofStatus
from finetune_contract.results import Probe
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_prober.engine import Engine, EngineBusyError, EngineRefusedError
from finetune_prober.judgement import judge
from finetune_prober.metrics import Metrics
from finetune_store.manifests import verify_directory

Sleep = Callable[[float], Awaitable[None]]

log = logging.getLogger(__name__)

_HEALTH_INTERVAL = 1.0
"""Seconds between health checks of a proven engine; a container needs longer than this to restart unnoticed."""

_SLOW_ANSWERS = 3
"""Health checks in a row that may time out: an engine under load is slow, not gone."""


def back_off(first: float, most: float) -> Iterator[float]:
    """Seconds to wait before each retry, doubling."""
    while True:
        yield first
        first = min(2 * first, most)


class Prover:
    """Follows one engine and its adapters."""

    def __init__(
        self, plan: ServingPlan, adapters: Path, engine: Engine, metrics: Metrics, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._plan = plan
        self._root = adapters
        self._engine = engine
        self._metrics = metrics
        self._sleep = sleep
        self._message = "the adapters' files are being verified"
        self._is_ready = False
        self._unready = asyncio.Event()
        self._unready.set()
        self._proofs = {
            adapter.name: AdapterProof(name=adapter.name, digest=adapter.artifact.digest, state=ProofState.PENDING)
            for adapter in plan.proven
        }

    @property
    def status(self) -> ProofStatus:
        """What is proven now."""
        return ProofStatus(ready=self._is_ready, message=self._message, adapters=tuple(self._proofs.values()))

    async def until_unready(self) -> None:
        """Return as soon as the engine is not ready, or no longer."""
        await self._unready.wait()

    async def run(self) -> None:
        """Prove, follow, and prove again whenever the engine was away: it may have come back with other weights."""
        probes = await self._verified_probes()
        while True:
            await self._prove_until_ready(probes)
            self._say(ready=True, message="")
            log.info("ready; proven: %s", ", ".join(self._proofs) or "no adapters, as there are none")
            message = await self._until_engine_is_lost()
            self._say(ready=False, message=message)
            self._set_all(ProofState.LOADING, message)
            log.warning("not ready: %s", message)

    async def _verified_probes(self) -> dict[str, Probe]:
        """Every adapter's probe, once all files are right.

        Files in place never change, so a fault is the init container's or the disk's; it is looked at again in case
        somebody mends it, and reported meanwhile.
        """
        for delay in back_off(2, 60):
            probes: dict[str, Probe] = {}
            for adapter in self._plan.proven:
                try:
                    probes[adapter.name] = await asyncio.to_thread(verified_probe, self._root, adapter)
                    self._set(adapter.name, ProofState.LOADING, "waiting for the engine")
                except FineTuneError as error:
                    self._set(adapter.name, ProofState.INVALID, str(error))
            if len(probes) == len(self._plan.proven):
                break
            self._say(ready=False, message=self._first_fault())
            await self._sleep(delay)
        return probes

    async def _prove_until_ready(self, probes: dict[str, Probe]) -> None:
        # An engine that starts is what a roll-out waits for: it is not to wait for us.
        starting = back_off(0.25, 0.5)
        failing = back_off(5, 60)
        while True:
            try:
                await self._prove(probes)
                if all(proof.state is ProofState.SERVING for proof in self._proofs.values()):
                    return
                self._say(ready=False, message=self._first_fault())
                delays = failing
            except EngineRefusedError as error:
                self._say(ready=False, message=str(error))
                delays = failing
            except (EngineBusyError, TimeoutError) as error:
                self._say(ready=False, message=f"waiting for the engine: {error or 'no answer in time'}")
                delays = starting
            await self._sleep(next(delays))

    async def _prove(self, probes: dict[str, Probe]) -> None:
        await self._engine.check_health()
        if missing := await self._engine.missing([self._plan.name, *probes]):
            raise EngineRefusedError(f"/v1/models does not list {', '.join(missing)}")
        for name, probe in probes.items():
            await self._prove_one(name, probe)

    async def _prove_one(self, name: str, probe: Probe) -> None:
        started = time.monotonic()
        answers = [
            await self._engine.complete(
                name, prompt.prompt, max(1, len(prompt.tuned_logprobs), len(prompt.base_logprobs))
            )
            for prompt in probe.prompts
        ]
        verdict = judge(probe, answers)
        seconds = time.monotonic() - started
        self._set(name, verdict.state, verdict.message, seconds)
        self._metrics.observe_proof(name, verdict.state, seconds)
        log.info(
            "%s: %s (%.2f s; distance to tuned %.5f, to base %.5f) %s",
            *(name, verdict.state, seconds, verdict.to_tuned, verdict.to_base, verdict.message),
        )

    async def _until_engine_is_lost(self) -> str:
        slow = 0
        while True:
            await self._sleep(_HEALTH_INTERVAL)
            try:
                await self._engine.check_health()
                slow = 0
            except EngineBusyError as error:
                return str(error)
            except TimeoutError:
                slow += 1
                if slow == _SLOW_ANSWERS:
                    return "/health does not answer in time"

    def _first_fault(self) -> str:
        faults = (proof for proof in self._proofs.values() if proof.message)
        return next((f"adapter {proof.name} is {proof.state}: {proof.message}" for proof in faults), "")

    def _set(self, name: str, state: ProofState, message: str, seconds: float | None = None) -> None:
        update = {"state": state, "message": message, "seconds": seconds}
        self._proofs[name] = self._proofs[name].model_copy(update=update)
        self._metrics.set_state(name, state)

    def _set_all(self, state: ProofState, message: str) -> None:
        for name in self._proofs:
            self._set(name, state, message)

    def _say(self, *, ready: bool, message: str) -> None:
        self._is_ready, self._message = ready, message
        if ready:
            self._unready.clear()
        else:
            self._unready.set()
        self._metrics.ready.set(ready)


def verified_probe(root: Path, adapter: ServedAdapter) -> Probe:
    """The probe of an adapter whose every file is what the plan asks for.

    Raises:
        FineTuneError: Naming the file, or both digests.
    """
    digest = adapter.artifact.digest
    directory = root / adapter.name / digest.removeprefix("sha256:")
    manifest = verify_directory(directory)
    if manifest.digest != digest:
        raise _unproven(f"{directory}: holds {manifest.digest}; the plan asks for {digest}")
    path = directory / PROBE_FILE
    try:
        probe = Probe.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise _unproven(f"{path}: there is no readable probe, so nothing can be proven; train it again") from error
    if not probe.prompts:
        raise _unproven(f"{path}: has no prompts, so nothing can be proven; train it again")
    return probe


def _unproven(message: str) -> FineTuneError:
    return FineTuneError(FailureReason.STORAGE_UNAVAILABLE, message)
