"""The proof's course: files, an engine that starts, judges and goes, all with a scripted engine."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from finetune_contract.base import StoredReference
from finetune_contract.failure import FineTuneError
from finetune_contract.manifest import Manifest, StoredKind
from finetune_contract.proof import ProofState
from finetune_contract.results import Probe, ProbePrompt
from finetune_contract.serving import ServedAdapter, ServingPlan
from finetune_prober.engine import Engine, EngineBusyError, EngineRefusedError
from finetune_prober.judgement import Answer, AnswerToken
from finetune_prober.metrics import Metrics
from finetune_prober.prover import Prover, back_off, verified_probe
from finetune_store.files import entries_of
from finetune_store.manifests import write_manifest

TUNED = Answer("json", (AnswerToken("json", 0, -0.1, {}),))
BASE = Answer("the", (AnswerToken("the", 0, -0.2, {}),))
PROBE = Probe(
    prompts=(
        ProbePrompt(prompt="?", tuned_text="json", tuned_logprobs=(-0.1,), base_text="the", base_logprobs=(-0.2,)),
    )
)


def deliver(root: Path, probe: str = PROBE.to_json()) -> ServedAdapter:
    """An adapter's directory, as the init container leaves it."""
    work = root / "work"
    work.mkdir(parents=True)
    (work / "adapter_model.safetensors").write_bytes(b"weights")
    (work / "probe.json").write_text(probe)
    manifest = Manifest.of_files(StoredKind.ARTIFACT, entries_of(work), {})
    write_manifest(work, manifest)
    (root / "triage").mkdir()
    work.rename(root / "triage" / manifest.digest.removeprefix("sha256:"))
    return ServedAdapter(name="triage", artifact=StoredReference(digest=manifest.digest, uri="pvc://c/artifacts/a"))


def directory_of(root: Path, adapter: ServedAdapter) -> Path:
    return root / adapter.name / adapter.artifact.digest.removeprefix("sha256:")


def test_right_files_give_the_probe(tmp_path: Path) -> None:
    assert verified_probe(tmp_path, deliver(tmp_path)) == PROBE


def swap_weights(directory: Path) -> None:
    (directory / "adapter_model.safetensors").write_bytes(b"wEights")


def add_file(directory: Path) -> None:
    (directory / "extra.bin").write_bytes(b"")


def other_digest(directory: Path) -> None:
    """A whole and verified adapter, but not the one that was asked for."""
    (directory / "adapter_model.safetensors").write_bytes(b"others")
    (directory / "manifest.json").unlink()
    write_manifest(directory, Manifest.of_files(StoredKind.ARTIFACT, entries_of(directory), {}))


@pytest.mark.parametrize(
    ("harm", "says"),
    [(swap_weights, "sha256"), (add_file, "not in the manifest"), (other_digest, "the plan asks for")],
)
def test_wrong_files_are_named(tmp_path: Path, harm: Callable[[Path], None], says: str) -> None:
    adapter = deliver(tmp_path)
    harm(directory_of(tmp_path, adapter))

    with pytest.raises(FineTuneError, match=says):
        verified_probe(tmp_path, adapter)


@pytest.mark.parametrize("probe", ["{", '{"prompts": []}'])
def test_without_a_probe_nothing_can_be_proven(tmp_path: Path, probe: str) -> None:
    with pytest.raises(FineTuneError, match="nothing can be proven"):
        verified_probe(tmp_path, deliver(tmp_path, probe))


class ScriptedEngine(Engine):
    """Says what a test sets."""

    def __init__(self) -> None:
        self.health: Exception | None = None
        self.listed = frozenset({"support", "triage"})
        self.answer: Answer | Exception = TUNED
        self.proofs = 0

    async def check_health(self) -> None:
        if self.health:
            raise self.health

    async def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in self.listed)

    async def complete(self, model: str, prompt: str, max_tokens: int) -> Answer:
        assert (model, prompt, max_tokens) == ("triage", "?", 1)
        self.proofs += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Course:
    """A prover at work, with waits of no length."""

    def __init__(self, root: Path, *, is_merged: bool = False) -> None:
        self.engine = ScriptedEngine()
        adapter = deliver(root)
        base = StoredReference(digest="sha256:" + "0" * 64, uri="pvc://c/models/0")
        plan = ServingPlan(name="support", namespace="n", base=base, adapters=(adapter,), claim="c")
        if is_merged:
            plan = plan.model_copy(update={"name": adapter.name, "adapters": (), "merged": adapter})
        self.directory = directory_of(root, adapter)
        self.prover = Prover(plan, root, self.engine, Metrics(), sleep=lambda _seconds: asyncio.sleep(0))

    def state(self) -> ProofState:
        return self.prover.status.adapters[0].state

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():  # noqa: ASYNC110 - every turn lets the prover take one step
                await asyncio.sleep(0)

    async def until_says(self, words: str) -> None:
        await self.until(lambda: words in self.prover.status.message)
        assert not self.prover.status.ready


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path)


async def test_proven_then_lost_then_proven_again(course: Course) -> None:
    engine, prover = course.engine, course.prover
    assert course.state() is ProofState.PENDING
    engine.health = EngineBusyError("/health answers 503")
    task = asyncio.create_task(prover.run())

    await course.until_says("waiting for the engine: /health answers 503")
    assert course.state() is ProofState.LOADING
    engine.health = None
    await course.until(lambda: prover.status.ready)
    assert course.state() is ProofState.SERVING
    assert engine.proofs == 1

    engine.health = EngineBusyError("no connection to the engine")
    await course.until_says("no connection")
    assert course.state() is ProofState.LOADING
    engine.health, engine.answer = None, BASE
    await course.until_says("adapter triage is Inert")
    engine.answer = TUNED
    await course.until(lambda: prover.status.ready)
    assert engine.proofs >= 3
    task.cancel()


async def test_a_slow_health_check_is_not_a_lost_engine(course: Course) -> None:
    task = asyncio.create_task(course.prover.run())
    await course.until(lambda: course.prover.status.ready)

    answers = iter([TimeoutError(), TimeoutError(), None, TimeoutError(), TimeoutError(), TimeoutError()])
    asked: list[bool] = []

    async def check_health() -> None:
        asked.append(course.prover.status.ready)
        if error := next(answers, EngineBusyError("gone")):
            raise error

    course.engine.check_health = check_health  # type: ignore[method-assign]
    await course.until(lambda: len(asked) == 7)
    assert asked == [True] * 6 + [False]
    task.cancel()


@pytest.mark.parametrize(
    ("listed", "answer", "says"),
    [
        (frozenset({"support"}), TUNED, "does not list triage"),
        (frozenset({"triage"}), TUNED, "does not list support"),
        (None, EngineRefusedError("answers 404"), "answers 404"),
        (None, EngineBusyError("answers 429"), "waiting for the engine: answers 429"),
        (None, Answer("zip", (AnswerToken("zip", 0, -0.1, {}),)), "Invalid"),
    ],
    ids=["adapter not listed", "base not listed", "refused", "busy", "another adapter"],
)
async def test_not_ready(course: Course, listed: frozenset[str] | None, answer: Answer | Exception, says: str) -> None:
    course.engine.listed = listed or course.engine.listed
    course.engine.answer = answer
    task = asyncio.create_task(course.prover.run())

    await course.until_says(says)
    task.cancel()


async def test_wrong_files_are_reported_and_looked_at_again(course: Course) -> None:
    weights = course.directory / "adapter_model.safetensors"
    weights.write_bytes(b"wEights")
    task = asyncio.create_task(course.prover.run())

    await course.until_says("adapter triage is Invalid")
    assert course.engine.proofs == 0, "nothing is asked about files that are wrong"
    weights.write_bytes(b"weights")
    await course.until(lambda: course.prover.status.ready)
    task.cancel()


def test_waits_double() -> None:
    delays = back_off(0.25, 2)

    assert [next(delays) for _ in range(6)] == [0.25, 0.5, 1, 2, 2, 2]


async def test_a_merged_model_is_proven_by_its_adapters_probe(tmp_path: Path) -> None:
    course = Course(tmp_path, is_merged=True)
    course.engine.listed = frozenset({"triage"})
    course.engine.answer = BASE
    task = asyncio.create_task(course.prover.run())
    await course.until_says("adapter triage is Inert")
    course.engine.answer = TUNED
    await course.until(lambda: course.prover.status.ready)
    task.cancel()
    await asyncio.wait({task})
