"""From `kubectl apply` to the first optimiser step on the local cluster; image, base model and dataset are there."""

from __future__ import annotations

import os
import time

from rich.console import Console

from tools.console import StepError
from tools.demo import timings
from tools.demo.__main__ import JOB_SECONDS, TUNED_JOB
from tools.demo.bench import job_with_seed
from tools.demo.follow import until_ready
from tools.demo.kubectl import Namespace

STAGES = ("apply to inputs ready", "inputs ready to pod", "pod to first step")


def measure() -> list[dict[str, object]]:
    """Run the demo's second job once more with a seed of its own, a few steps long.

    Raises:
        StepError: When there is no demo on the cluster.
    """
    namespace = Namespace(os.environ.get("DEMO_NAMESPACE", "demo"))
    if namespace.get("finetunejob", TUNED_JOB) is None:
        raise StepError(f"there is no demo in namespace {namespace.name}; `make demo` makes one")
    job = job_with_seed(int(time.time()))
    job["spec"]["hyperparameters"]["epochs"] = 0.2
    namespace.apply_objects(job)
    done = until_ready(namespace, "finetunejob", job["metadata"]["name"], JOB_SECONDS, Console())
    stages = timings.of_job(namespace, done, [])
    namespace.kubectl("delete", "finetunejob", job["metadata"]["name"], "--wait=false")
    rows: list[dict[str, object]] = [
        {"name": f"startup_{stage.replace(' ', '_')}_s", "value": stages[stage], "unit": "s"} for stage in STAGES
    ]
    total = round(sum(stages[stage] for stage in STAGES), 1)
    return [{"name": "apply_to_first_step_s", "value": total, "unit": "s"}, *rows]
