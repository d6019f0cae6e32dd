"""`make bench-trainer`: our trainer against plain TRL on the same model, rows, seeds and tokens, one process each.

On a machine with a GPU also an 8 B model; with the local cluster up also the time from apply to the first step. What is
not measured is not written.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.bench.contender import PACK
from tools.bench.corpus import pairs
from tools.console import StepError, exit_on_failure, run_logged, say
from tools.demo.make_base import make_model, train_tokenizer
from tools.paths import LOCAL

BENCH = LOCAL / "bench"
SEEDS = (0, 1, 2)
ROWS, HELD_OUT = 400, 100
CONTENDERS = ("ours", "trl_default", "trl_packing")
PREFIX = {"ours": "", "trl_default": "trl_default_", "trl_packing": "trl_packing_"}
TITLE = {"ours": "this trainer", "trl_default": "TRL", "trl_packing": "TRL, packing=True"}

Figures = dict[str, float]
Row = dict[str, object]


def make_files(directory: Path) -> None:
    """A random base model and docstrings, the same for all."""
    rows = pairs(ROWS + HELD_OUT)
    tokenizer = train_tokenizer([row.prompt + row.completion for row in rows], directory / "base")
    make_model(tokenizer, directory / "base")
    fitting = [row._asdict() for row in rows if len(tokenizer.tokenize(row.prompt + row.completion)) < PACK]
    for split, part in (("test", fitting[:HELD_OUT]), ("train", fitting[HELD_OUT:])):
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))


def contend(directory: Path) -> dict[str, list[Figures]]:
    """Every contender with every seed; they take turns, so that a noisy neighbour meets them all."""
    found: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
    for seed in SEEDS:
        for name in CONTENDERS:
            argv = [sys.executable, "-W", "ignore", "-m", "tools.bench.contender", name, str(directory), str(seed)]
            run_logged(f"{TITLE[name]}, seed {seed}", argv, BENCH / f"trainer-{name}-{seed}.log")
            found[name].append(json.loads((directory / f"{name}-{seed}.json").read_text()))
    return found


def cpu_rows(found: dict[str, list[Figures]]) -> list[Row]:
    """Medians over the seeds."""
    rows: list[Row] = []
    for name, runs in found.items():
        for figure, unit, values in (
            ("useful_tokens_per_s", "tokens/s", [run["tokens"] / run["seconds"] for run in runs]),
            ("useful_tokens_per_cpu_s", "tokens/CPU-s", [run["tokens"] / run["cpu_seconds"] for run in runs]),
            ("eval_loss", "nats/token", [run["eval_loss"] for run in runs]),
            ("peak_mb", "MB", [run["peak_mb"] for run in runs]),
        ):
            digits = 4 if figure == "eval_loss" else 0
            rows.append(
                {"name": PREFIX[name] + figure, "value": round(statistics.median(values), digits), "unit": unit}
            )
    return rows


def cpu_table(found: dict[str, list[Figures]]) -> Table:
    """Contenders side by side, ratios of each seed's own runs."""
    table = Table(title=f"CPU, {len(SEEDS)} seeds, medians")
    for title in (
        "",
        "tokens/s",
        "tokens/CPU-s",
        "ours/its, CPU",
        "eval loss",
        "ours - its",
        "peak MB",
        "tokens",
        "steps",
    ):
        table.add_column(title, justify="left" if not title else "right")
    for name, runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        speeds = [run["tokens"] / run["cpu_seconds"] for run in runs]
        own = [run["tokens"] / run["cpu_seconds"] for run in found["ours"]]
        worse = [mine["eval_loss"] / its["eval_loss"] - 1 for mine, its in zip(found["ours"], runs, strict=True)]
        table.add_row(
            TITLE[name],
            f"{statistics.median(run['tokens'] / run['seconds'] for run in runs):,.0f}",
            f"{statistics.median(speeds):,.0f}",
            f"{statistics.median(mine / its for mine, its in zip(own, speeds, strict=True)):.2f}",
            f"{middle['eval_loss']:.4f}",
            f"{statistics.mean(worse):+.2%}",
            f"{middle['peak_mb']:,.0f}",
            f"{middle['tokens']:,.0f}",
            f"{middle['steps']:.0f}",
        )
    return table


def gpu_rows(directory: Path) -> list[Row]:
    """The 8 B model, where there is a GPU."""
    from tools.bench.gpu import is_there

    if not is_there():
        say("  no CUDA device: the 8 B model is skipped")
        return []
    run_logged(
        "Llama-3.1-8B shape, LoRA", [sys.executable, "-m", "tools.bench.gpu", str(directory)], BENCH / "trainer-gpu.log"
    )
    return list(json.loads((directory / "gpu.json").read_text()))


def startup_rows() -> list[Row]:
    """Apply to first step, where the local cluster has the chart."""
    from tools.bench.startup import measure

    try:
        return measure()
    except (StepError, OSError, subprocess.SubprocessError) as error:
        say(f"  apply to first step is skipped: {error}")
        return []


def main() -> None:
    """Measure what this machine can, print it, write it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    BENCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-trainer-") as scratch:
        directory = Path(scratch)
        say("  reading docstrings, making a random base model")
        make_files(directory)
        found = contend(directory)
        rows = [*cpu_rows(found), *gpu_rows(directory), *startup_rows()]
    console = Console()
    console.print(cpu_table(found))
    for row in rows[len(CONTENDERS) * 4 :]:
        console.print(f"  {row['name']}: {row['value']} {row['unit']}")
    (BENCH / "trainer.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    say(f"  figures in {BENCH.relative_to(LOCAL.parent)}/trainer.json")


if __name__ == "__main__":
    exit_on_failure(main)
