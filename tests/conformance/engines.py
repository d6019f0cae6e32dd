"""The engine under test: our own, started here, vLLM started here where it is installed, or whatever is at a URL.

ENGINE           transformers (default), vllm or tgi: which column of `answers.py` holds
ENGINE_URL       the engine's address without /v1; then nothing is started
ENGINE_API_KEY   its API key, if it asks for one
ENGINE_MODEL     the base's model name, if it is not the first of /v1/models
ENGINE_ADAPTERS  names of two adapters, separated by a comma, if /v1/models does not list them
ENGINE_STOP      a shell command that sends the engine SIGTERM, such as `kubectl delete pod x --wait=false`
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from finetune_contract.paths import ENV_API_KEYS_FILE
from tests.conformance.answers import QUESTIONS
from tests.trainer.server.running import START_SECONDS, serving, wait_until
from tests.trainer.server.tiny import Shop
from tools.ports import free_port

KEY = "sk-conformance"
ENGINES = ("transformers", "vllm", "tgi")


@dataclass(frozen=True)
class Target:
    """An engine that answers."""

    engine: str
    url: str
    api_key: str | None
    base: str
    adapters: tuple[str, ...]
    stop: Callable[[], object] | None
    """Sends it SIGTERM; None when nobody has said how."""

    def expected(self, question: str) -> str:
        """What this engine says to a question on which engines differ."""
        return str(getattr(QUESTIONS[question], self.engine))


@contextmanager
def engine_under_test(directory: Path) -> Iterator[Target]:
    """The engine that the environment names."""
    engine = os.environ.get("ENGINE", "transformers")
    assert engine in ENGINES, f"ENGINE: {engine!r} is none of {', '.join(ENGINES)}"
    if url := os.environ.get("ENGINE_URL"):
        yield _at(engine, url.rstrip("/"))
    elif engine == "transformers":
        with _our_own(directory) as target:
            yield target
    else:
        assert engine == "vllm", "ENGINE=tgi: set ENGINE_URL; TGI is not installed from here"
        assert shutil.which("vllm"), "ENGINE=vllm: set ENGINE_URL, or install vLLM so that `vllm serve` is on PATH"
        with _vllm(directory) as target:
            yield target


def _at(engine: str, url: str) -> Target:
    key = os.environ.get("ENGINE_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    listed = [model["id"] for model in httpx.get(f"{url}/v1/models", headers=headers).raise_for_status().json()["data"]]
    base = os.environ.get("ENGINE_MODEL", listed[0])
    named = [name for name in os.environ.get("ENGINE_ADAPTERS", "").split(",") if name]
    adapters = tuple(named or [name for name in listed if name != base])
    assert len(adapters) > 1, f"two adapters are needed, {url} lists {listed}: set ENGINE_ADAPTERS"
    command = os.environ.get("ENGINE_STOP")
    stop = (lambda: subprocess.run(command, shell=True, check=True)) if command else None
    return Target(engine, url, key, base, adapters[:2], stop)


@contextmanager
def _our_own(directory: Path) -> Iterator[Target]:
    shop = Shop(directory)
    adapters = {name: shop.publish(seed) for seed, name in enumerate(("triage", "docs"))}
    plan = shop.write_plan(shop.plan(adapters, max_batch_size=8), "conformance")
    keys = directory / "keys"
    keys.write_text(f"sk-of-somebody-else\n{KEY}\n")
    with serving(plan, shop.root / "store", shop.adapters, {ENV_API_KEYS_FILE: str(keys)}) as running:
        yield Target("transformers", running.url, KEY, "tiny", ("triage", "docs"), running.process.terminate)


@contextmanager
def _vllm(directory: Path) -> Iterator[Target]:
    shop = Shop(directory)
    adapters = {name: shop.publish(seed) for seed, name in enumerate(("triage", "docs"))}
    shop.plan(adapters)
    modules = [f"{name}={shop.adapter_path(name, reference)}" for name, reference in adapters.items()]
    port = free_port()
    command = [
        "vllm", "serve", str(shop.base_path), "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port),
        "--enable-lora", "--max-loras", "2", "--max-lora-rank", "8", "--dtype", "float32", "--api-key", KEY,
        "--lora-modules", *modules,
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with (directory / "vllm.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: _is_up(process, url, directory / "vllm.log"), 3 * START_SECONDS, "vLLM serves")
        yield Target("vllm", url, KEY, "tiny", ("triage", "docs"), process.terminate)
    finally:
        process.kill()
        process.wait(10)


def _is_up(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
