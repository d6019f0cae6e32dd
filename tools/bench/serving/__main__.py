"""`python -m tools.bench.serving [demo] [llama] [update]`: everything when nothing is named.

`update` is another adapter on a running ModelDeployment of the local cluster; without one it is skipped.

Every contender is alone on the machine while it is measured. The base's answers are asked of both servers in one piece,
because `transformers serve` sends no usage with a stream that could be trusted; ours are then asked again as streams.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tools.bench.corpus import pairs
from tools.bench.figures import FOLDER, Row, percentile, report
from tools.bench.serving.load import Load, peak_mb, run
from tools.bench.serving.shop import ADAPTERS, BASE, MODELS, Shop
from tools.bench.serving.update import measure
from tools.console import exit_on_failure, failure, run_logged, say
from tools.ports import free_port

STREAMS = (1, 8, 32)
TOKENS = {"demo": 96, "llama": 24}
"""Per answer."""
ROUNDS = {"demo": 3, "llama": 1}
"""Requests per stream, one after the other."""
PAIRS = {"demo": 24, "llama": 2}
"""How often streams and whole answers take turns: of a small model both are over within a second."""
PROMPT_CHARACTERS = 120
START_SECONDS = 240
UPDATE = "update"
HEADLINE = "llama"
"""The model whose rows have no prefix."""


class Server(NamedTuple):
    """A server that answers."""

    url: str
    pid: int


@contextmanager
def serving(title: str, argv: Sequence[str], port: int) -> Iterator[Server]:
    """A server as a process of its own, until the block ends."""
    log = FOLDER / f"serving-{title}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_up(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise failure(title, "does not serve", log)
            time.sleep(0.2)
        yield Server(url, process.pid)
    finally:
        process.kill()
        process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


class Bench:
    """One model's figures."""

    def __init__(self, name: str, shop: Shop, prompts: list[str], rows: list[Row]) -> None:
        self.name = name
        self.shop = shop
        self.prompts = prompts
        self.rows = rows

    def row(self, name: str, value: float, unit: str) -> None:
        """Note a figure; those of the headline model have the names that the aims are written in."""
        prefix = "" if self.name == HEADLINE else f"{self.name}_"
        self.rows.append(Row(prefix + name, round(value, 4), unit))

    def load(self, server: Server, streams: int, models: Sequence[str], *, is_stream: bool = True) -> Load:
        """So many streams over some models, after a warm-up of one short answer each."""
        asked = [
            [
                self._body(models[at % len(models)], at * ROUNDS[self.name] + turn, is_stream)
                for turn in range(ROUNDS[self.name])
            ]
            for at in range(streams)
        ]
        return run(server.url, asked, server.pid)

    def _body(self, model: str, number: int, is_stream: bool) -> dict[str, object]:
        body: dict[str, object] = {
            "model": model,
            "prompt": self.prompts[number % len(self.prompts)],
            "max_tokens": TOKENS[self.name],
            "temperature": 0,
        }
        return {**body, "stream": True, "stream_options": {"include_usage": True}} if is_stream else body

    def ours(self) -> None:
        """The Transformers engine."""
        port = free_port()
        argv = [
            *(sys.executable, "-m", "finetune_server", "--host=127.0.0.1", f"--port={port}"),
            *(f"--plan={self.shop.plan}", f"--store={self.shop.store.root}", f"--adapters={self.shop.adapters}"),
        ]
        with serving(f"{self.name}-ours", argv, port) as server:
            self.load(server, 8, [BASE, *ADAPTERS])
            whole = [self.load(server, 8, [BASE], is_stream=False) for _ in range(2)]
            self.row("base_tokens_per_s_8", statistics.mean(one.tokens_per_s for one in whole), "tokens/s")
            self.row("base_tokens_per_cpu_s_8", _per_cpu_second(whole), "tokens/CPU-s")
            self.row("base_rss_mb", peak_mb(server.pid), "MB")
            for adapters in (1, 8):
                for streams in STREAMS:
                    self._note(self.load(server, streams, ADAPTERS[:adapters]), f"{streams}x{adapters}")
            self._streaming_overhead(server)
            self.row("rss_mb", peak_mb(server.pid), "MB")

    def _note(self, load: Load, shape: str) -> None:
        self.row(f"tokens_per_s_{shape}", load.tokens_per_s, "tokens/s")
        self.row(f"tokens_per_cpu_s_{shape}", _per_cpu_second([load]), "tokens/CPU-s")
        self.row(f"requests_per_s_{shape}", len(load.answers) / load.seconds, "requests/s")
        for label, share in (("p50", 0.5), ("p95", 0.95)):
            self.row(f"ttft_{label}_s_{shape}", percentile(load.first_token_seconds, share), "s")
            self.row(f"inter_token_{label}_ms_{shape}", 1000 * percentile(load.gaps, share), "ms")

    def _streaming_overhead(self, server: Server) -> None:
        """What streams cost beside whole answers, in seconds and in processor time; they take turns."""
        pairs = [
            [self.load(server, 8, [BASE], is_stream=is_stream) for is_stream in (True, False)]
            for _ in range(PAIRS[self.name])
        ]
        # Medians, because what else runs on a machine slows one of a pair down.
        seconds = statistics.median(_per_token(one.seconds, one) / _per_token(two.seconds, two) for one, two in pairs)
        cpu = statistics.median(
            _per_token(one.cpu_seconds, one) / _per_token(two.cpu_seconds, two) for one, two in pairs
        )
        self.row("streaming_overhead_percent", 100 * (seconds - 1), "%")
        self.row("streaming_overhead_cpu_percent", 100 * (cpu - 1), "%")

    def transformers_serve(self) -> None:
        """`transformers serve --continuous-batching`, which has no adapters."""
        port = free_port()
        program = shutil.which("transformers", path=str(Path(sys.executable).parent))
        assert program is not None
        argv = [program, "serve", str(self.shop.base_path), "--continuous-batching", "--device=cpu", "--dtype=float32",
                "--host=127.0.0.1", f"--port={port}"]  # fmt: skip
        with serving(f"{self.name}-transformers-serve", argv, port) as server:
            model = str(self.shop.base_path)
            self.load(server, 8, [model], is_stream=False)
            whole = [self.load(server, 8, [model], is_stream=False) for _ in range(2)]
            speed = statistics.mean(one.tokens_per_s for one in whole)
            self.row("transformers_serve_tokens_per_s_8", speed, "tokens/s")
            self.row("transformers_serve_tokens_per_cpu_s_8", _per_cpu_second(whole), "tokens/CPU-s")
            self.row("transformers_serve_rss_mb", peak_mb(server.pid), "MB")

    def one_at_a_time(self) -> None:
        """Plain peft, eight requests for eight adapters."""
        from finetune_server.model import threads_for

        request = {
            "base": str(self.shop.base_path),
            "adapters": [str(path) for path in self.shop.adapter_paths],
            "prompts": self.prompts[: len(ADAPTERS)],
            "max_tokens": TOKENS[self.name],
            "threads": threads_for(self.shop.parameters),
        }
        file = self.shop.root / "sequential.json"
        file.write_text(json.dumps(request))
        argv = [sys.executable, "-W", "ignore", "-m", "tools.bench.serving.sequential", str(file)]
        run_logged(f"{self.name}, one at a time", argv, FOLDER / f"serving-{self.name}-sequential.log")
        found = json.loads(file.with_suffix(".figures.json").read_text())
        self.row("tokens_per_s_one_at_a_time", found["tokens"] / found["seconds"], "tokens/s")
        self.row("tokens_per_cpu_s_one_at_a_time", found["tokens"] / found["cpu_seconds"], "tokens/CPU-s")
        self.row("rss_mb_one_at_a_time", found["peak_mb"], "MB")


def _per_token(amount: float, load: Load) -> float:
    return amount / load.tokens


def _per_cpu_second(loads: Sequence[Load]) -> float:
    return sum(load.tokens for load in loads) / sum(load.cpu_seconds for load in loads)


def main() -> None:
    """Measure and report."""
    names = sys.argv[1:] or [*MODELS, UPDATE]
    texts = [pair.prompt + pair.completion for pair in pairs(400)]
    prompts = [text[:PROMPT_CHARACTERS] for text in texts[:96]]
    rows: list[Row] = []
    # What was measured is told, also when somebody ends it before the end.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(1))
    try:
        if UPDATE in names:
            rows += measure()
        for name in (name for name in names if name != UPDATE):
            with tempfile.TemporaryDirectory(prefix="bench-serving-") as directory:
                shop = Shop(Path(directory) / "shop", texts, MODELS[name])
                say(f"  {name}: {shop.parameters:,} parameters")
                bench = Bench(name, shop, prompts, rows)
                bench.ours()
                bench.one_at_a_time()
                bench.transformers_serve()
    finally:
        report("serving", rows)


if __name__ == "__main__":
    exit_on_failure(main)
