"""`python -m tools.bench.operator [--jobs 1000] [--resting 10000] [--workers 16]`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from finetune_operator.settings import Settings
from tools import binaries
from tools.bench.figures import Row, percentile, report
from tools.bench.operator import burst, fakes, rest
from tools.bench.operator.api import Api
from tools.bench.operator.process import Operator
from tools.cluster.controlplane import ControlPlane
from tools.console import StepError, exit_on_failure, say
from tools.paths import REPOSITORY

BARE, NAMESPACE = "bare", "bench"
IDLE_SECONDS = 60.0
SWEEP_EACH = 30.0
"""Seconds between two sweeps of a run that has many of them, so that one's cost can be told from doing nothing."""
SETTLED_SHARE = 0.05
"""A process that uses less of a core than this has nothing left to do."""


async def measure(plane: ControlPlane, jobs: int, resting: int, workers: int) -> list[Row]:
    """All figures."""
    async with Api(plane) as api:
        await fakes.install(api, REPOSITORY / "crds")
        await fakes.furnish(api, (BARE, NAMESPACE))
        plane.run(fakes.kwok(plane))
        async with Operator(plane, NAMESPACE, workers=str(workers)) as operator:
            await operator.until("finetune_operator_leader_election_master_status", 1)
            await api.create(fakes.dataset(), NAMESPACE)
            dataset = await _ready_dataset(api)
            bare = await _bare(plane, api, jobs, dataset)
            await _settle(plane)
            rows = await _burst(plane, api, operator, jobs, bare)
        # Known now, even if what follows is interrupted.
        report("operator", rows)
        if resting:
            rows += await _rest(plane, api, jobs, resting)
    return rows


async def _ready_dataset(api: Api) -> dict[str, object]:
    async with asyncio.timeout(60):
        while True:
            found = await api.get("Dataset", NAMESPACE, fakes.DATASET)
            if found and (found.get("status") or {}).get("revision"):
                return found
            await asyncio.sleep(0.1)


async def _bare(plane: ControlPlane, api: Api, jobs: int, dataset: dict[str, object]) -> float:
    """Seconds that a bare client needs until every job has its Job."""
    say(f"bare client: {jobs} jobs")
    claim = await api.get("PersistentVolumeClaim", BARE, fakes.CLAIM)
    assert claim is not None
    scripts = [burst.script(number, BARE, dataset, claim) for number in range(jobs)]
    async with burst.Watching(api, BARE) as sightings:
        started, planes_before = time.monotonic(), plane.cpu_seconds()
        await burst.play(api, BARE, scripts, sightings)
        await burst.until_all("Jobs", sightings.jobs, jobs)
        _say_spent(plane, planes_before)
        return max(sightings.jobs.values()) - started


def _say_spent(plane: ControlPlane, before: dict[str, float]) -> None:
    for name, spent in plane.cpu_seconds().items():
        say(f"  {name:25} {spent - before.get(name, 0.0):6.1f} CPU-seconds")


async def _burst(plane: ControlPlane, api: Api, operator: Operator, jobs: int, bare: float) -> list[Row]:
    say(f"operator: {jobs} jobs")
    before, cpu_before, planes_before = await api.requests(), operator.cpu_seconds, plane.cpu_seconds()
    async with burst.Watching(api, NAMESPACE) as seen:
        started = time.monotonic()
        await burst.apply(api, NAMESPACE, seen, jobs)
        applied = time.monotonic() - started
        await burst.until_all("Jobs", seen.jobs, jobs)
        _say_spent(plane, planes_before)
        say(f"  {'operator':25} {operator.cpu_seconds - cpu_before:6.1f} CPU-seconds")
        await burst.until_all("succeeded", seen.succeeded, jobs)
    after = await api.requests()
    writes = sum(after.values()) - sum(before.values())
    own = await operator.metric("finetune_operator_status_writes_total", kind="FineTuneJob")
    to_job = seen.since_applied(seen.jobs)
    to_training = seen.since_applied(seen.training_jobs)
    to_status = [when - seen.pods_finished[name] for name, when in seen.succeeded.items()]
    all_jobs = max(seen.jobs.values()) - started
    say("until all succeeded:")
    _say_spent(plane, planes_before)
    return [
        Row("jobs", jobs, ""),
        Row("applied_s", round(applied, 2), "s"),
        *(Row(f"apply_to_job_p{p}_s", round(percentile(to_job, p / 100), 3), "s") for p in (50, 95, 99)),
        Row("all_jobs_s", round(all_jobs, 2), "s"),
        Row("bare_client_all_jobs_s", round(bare, 2), "s"),
        Row("ratio_to_bare_client", round(all_jobs / bare, 2), ""),
        *(Row(f"apply_to_training_job_p{p}_s", round(percentile(to_training, p / 100), 3), "s") for p in (50, 99)),
        *(Row(f"pod_finished_to_status_p{p}_s", round(percentile(to_status, p / 100), 3), "s") for p in (50, 95, 99)),
        Row("all_succeeded_s", round(max(seen.succeeded.values()) - started, 2), "s"),
        Row("api_writes_per_job", round(writes / jobs, 1), ""),
        Row("status_writes_per_job", round(own / jobs, 2), ""),
        Row("operator_cpu_burst_s", round(operator.cpu_seconds - cpu_before, 1), "s"),
        Row("rss_after_burst_mb", round(operator.rss_megabytes), "MB"),
    ]


async def _rest(plane: ControlPlane, api: Api, jobs: int, resting: int) -> list[Row]:
    """With `resting` finished jobs: a restart, then a minute of nothing to do."""
    copier = await rest.Copier.of(api, NAMESPACE, "job-00000")
    names = [f"old-{number:05}" for number in range(resting - jobs)]
    say(f"{len(names)} copies of a finished job, {copier.size} objects each")
    await rest.fill(plane, copier, NAMESPACE, names)
    await _settle(plane)
    async with Operator(plane, NAMESPACE, resync_seconds=str(SWEEP_EACH)) as operator:
        await operator.until("finetune_operator_reconcile_total", resting, 300, kind="FineTuneJob")
        await _settle(plane, operator)
        with_sweep = await _idle_share(operator, 2 * SWEEP_EACH)
    async with Operator(plane, NAMESPACE) as operator:
        async with burst.Watching(api, NAMESPACE) as seen:
            item = fakes.job(99_999)
            await api.create(item, NAMESPACE)
            first = await operator.until("finetune_operator_reconcile_total", 1)
            await burst.until_all("new job", seen.jobs, 1)
            new = next(iter(seen.jobs.values())) - operator.started
            everything = await operator.until("finetune_operator_reconcile_total", resting, 300, kind="FineTuneJob")
            await burst.until_all("new job done", seen.succeeded, 1)
        await _settle(plane, operator)
        before = await api.requests()
        share = await _idle_share(operator, IDLE_SECONDS)
        after = await api.requests()
        written = {
            key: count - before.get(key, 0)
            for key, count in after.items()
            if key[1] != "leases" and count > before.get(key, 0)
        }
        if written:
            say(f"  writes at rest: {written}")
        return [
            Row("resting_jobs", resting, ""),
            Row("resting_objects", resting * copier.size, ""),
            Row("restart_10k_s", round(first, 1), "s"),
            Row("restart_10k_new_job_s", round(new, 1), "s"),
            Row("restart_10k_everything_s", round(everything, 1), "s"),
            Row("rss_10k_mb", round(operator.rss_megabytes), "MB"),
            Row("rss_peak_10k_mb", round(operator.peak_rss_megabytes), "MB"),
            Row("cpu_idle_10k_percent", round(100 * share, 2), "%"),
            Row("sweep_10k_cpu_s", round(max(0.0, with_sweep - share) * SWEEP_EACH, 2), "s"),
            Row("writes_idle_10k", sum(written.values()), ""),
        ]


async def _idle_share(operator: Operator, seconds: float) -> float:
    """Share of a core that the operator uses."""
    started, before = time.monotonic(), operator.cpu_seconds
    await asyncio.sleep(seconds)
    return (operator.cpu_seconds - before) / (time.monotonic() - started)


async def _settle(plane: ControlPlane, operator: Operator | None = None) -> None:
    """Until nobody has anything left to do."""
    for _ in range(60):
        before, own = plane.cpu_seconds(), operator.cpu_seconds if operator else 0.0
        await asyncio.sleep(3)
        after = plane.cpu_seconds()
        busy = {name for name, spent in after.items() if spent - before[name] > 3 * 0.2}
        if not busy and (operator is None or operator.cpu_seconds - own < 3 * SETTLED_SHARE):
            return
    say(f"  still busy: {', '.join(sorted(busy))}")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--resting", type=int, default=10_000)
    default_workers = Settings.model_fields["workers"].default
    parser.add_argument("--workers", type=int, default=default_workers, help="passes at the same time")
    options = parser.parse_args()
    if 0 < options.resting < options.jobs:
        raise StepError("--resting counts the --jobs too: it cannot be less")
    binaries.ensure("kubernetes", "kwok")
    folder = Path(tempfile.mkdtemp(prefix="bench-operator-"))
    with ControlPlane(folder) as plane:
        rows = asyncio.run(measure(plane, options.jobs, options.resting, options.workers))
    report("operator", rows)
    # Kept when something failed: the logs are in it.
    shutil.rmtree(folder)


if __name__ == "__main__":
    exit_on_failure(main)
