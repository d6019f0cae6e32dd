"""`make bench-demo`: the demo's tuned accuracy over three seeds, as FineTuneJobs in the demo's namespace."""

from __future__ import annotations

import json
import os
import statistics

import yaml
from rich.console import Console
from rich.table import Table

from tools.console import StepError, exit_on_failure, say
from tools.demo import tables
from tools.demo.__main__ import JOB_SECONDS, TUNED_JOB, YAMLS
from tools.demo.follow import until_ready
from tools.demo.kubectl import Namespace, Object
from tools.paths import LOCAL

SEEDS = (0, 1, 2)
BENCH = LOCAL / "bench"


def job_with_seed(seed: int) -> Object:
    """The demo's second job with another seed and a name of its own."""
    documents = yaml.safe_load_all((YAMLS / "2-jobs.yaml").read_text())
    job: Object = next(item for item in documents if item["metadata"]["name"] == TUNED_JOB)
    job["metadata"]["name"] = f"{TUNED_JOB}-seed-{seed}"
    job["spec"]["hyperparameters"]["seed"] = seed
    return job


def main() -> None:
    """Train with each seed, one after the other, and write the figures."""
    namespace = Namespace(os.environ.get("DEMO_NAMESPACE", "demo"))
    if namespace.get("finetunejob", TUNED_JOB) is None:
        raise StepError(f"there is no demo in namespace {namespace.name}: run `make demo` first")
    console = Console()
    tuned = []
    for seed in SEEDS:
        job = job_with_seed(seed)
        namespace.apply_objects(job)
        done = until_ready(namespace, "finetunejob", job["metadata"]["name"], JOB_SECONDS, console)
        tuned.append(tables.scores(done)["Tuned"]["value"])
    rows = [
        {"name": f"accuracy_seed_{seed}", "value": value, "unit": "share"}
        for seed, value in zip(SEEDS, tuned, strict=True)
    ]
    rows.append({"name": "accuracy_mean", "value": round(statistics.mean(tuned), 4), "unit": "share"})
    table = Table("figure", "value")
    for row in rows:
        table.add_row(str(row["name"]), f"{row['value']:.1%}")
    console.print(table)
    BENCH.mkdir(parents=True, exist_ok=True)
    (BENCH / "demo.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    say(f"  figures in {BENCH.relative_to(LOCAL.parent)}/demo.json")


if __name__ == "__main__":
    exit_on_failure(main)
