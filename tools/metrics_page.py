"""`python -m tools.metrics_page FILE`: the reference page of the operator's metrics, from the metrics themselves."""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from finetune_operator import metrics
from tools.console import exit_on_failure

HEAD = """# Metrics of the operator

Generated from the code by `make generate`. Served on `/metrics` of each replica's health port (8080).
Every label has few values: none is the name of an object, and `namespace` is on GPU-seconds, gates and adapters alone.
A standby's queue and passes stay at zero; sum over replicas. Counters begin at zero with each process.

| metric | type | labels | what it says |
|---|---|---|---|
"""
TAIL = """
Besides these, `process_*` (memory, processor time, file descriptors) and `python_gc_*` of the client library.

Useful expressions (`P` stands for `finetune_operator`):

| question | expression |
|---|---|
| When did a watch last say something? | `time() - P_watch_last_event_timestamp_seconds` |
| Does the queue keep up? | `histogram_quantile(0.99, rate(P_workqueue_queue_duration_seconds_bucket[5m]))` |
| Is there exactly one leader? | `sum(P_leader_election_master_status) == 1` |
| What do disruptions cost a day? | `increase(P_gpu_seconds_total{outcome="Disrupted"}[1d])` |
"""
TYPES: dict[type[MetricWrapperBase], tuple[str, str]] = {
    Counter: ("counter", "_total"),
    Gauge: ("gauge", ""),
    Histogram: ("histogram", ""),
}


def own_metrics() -> list[MetricWrapperBase]:
    """All that `finetune_operator.metrics` defines, by name."""
    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return sorted(found, key=name_of)


def name_of(metric: MetricWrapperBase) -> str:
    """As Prometheus sees it."""
    return next(iter(metric.describe())).name + TYPES[type(metric)][1]


def page() -> str:
    """The page's text."""
    rows = []
    for metric in own_metrics():
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - has no public name
        text = next(iter(metric.describe())).documentation
        rows.append(f"| `{name_of(metric)}` | {TYPES[type(metric)][0]} | {labels} | {text} |\n")
    return HEAD + "".join(rows) + TAIL


def main() -> None:
    """Write the page."""
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page())


if __name__ == "__main__":
    exit_on_failure(main)
