"""`python -m tools.metrics_page FILE`: the reference page of all our metrics, from the metrics themselves."""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from finetune_operator import metrics
from finetune_prober import metrics as prober
from finetune_server import metrics as engine
from finetune_trainer.progress import ProgressBoard
from tools.console import exit_on_failure

HEAD = """# Metrics

Generated from the code by `make generate`. How they get into Prometheus: [monitoring](../operating/monitoring.md).

## Operator

Served on `/metrics` of each replica's health port (8080, named `health`).
Every label has few values: none is the name of an object, and `namespace` is on GPU-seconds, gates and adapters alone.
A standby's queue and passes stay at zero; sum over replicas. Counters begin at zero with each process.

"""
AFTER_OPERATOR = """
Besides these, `process_*` (memory, processor time, file descriptors) and `python_gc_*` of the client library.

Useful expressions (`P` stands for `finetune_operator`):

| question | expression |
|---|---|
| When did a watch last say something? | `time() - P_watch_last_event_timestamp_seconds` |
| Does the queue keep up? | `histogram_quantile(0.99, rate(P_workqueue_queue_duration_seconds_bucket[5m]))` |
| Is there exactly one leader? | `sum(P_leader_election_master_status) == 1` |
| What do disruptions cost a day? | `increase(P_gpu_seconds_total{outcome="Disrupted"}[1d])` |

"""
OTHERS = {
    "Training pods": "Served on port 8080 (`http`) of training pods while they run; rank 0 of several has the figures.",
    "Prober": "Served on port 8081 (`prober`) of each serving pod, whatever its engine.",
    "Transformers engine": "Served on port 8080 (`http`) of serving pods, under TGI's names and ours by adapter. "
    "The engines TGI and VLLM serve their own metrics there.",
}
TABLE = "| metric | type | labels | what it says |\n|---|---|---|---|\n"
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


def registered(registry: CollectorRegistry) -> list[MetricWrapperBase]:
    """All metrics of a registry, by name."""
    found = [each for each in registry._collector_to_names if isinstance(each, MetricWrapperBase)]  # noqa: SLF001 - has no public name
    return sorted(found, key=name_of)


def catalogue() -> dict[str, list[MetricWrapperBase]]:
    """Who serves them -> metrics, by name."""
    registries = {
        "Training pods": ProgressBoard("", 1).registry,
        "Prober": prober.Metrics()._registry,  # noqa: SLF001 - only its own text needs it
        "Transformers engine": engine.Metrics()._registry,  # noqa: SLF001
    }
    return {"Operator": own_metrics(), **{who: registered(registry) for who, registry in registries.items()}}


def labels_of(metric: MetricWrapperBase) -> tuple[str, ...]:
    """Names of its labels."""
    return tuple(metric._labelnames)  # noqa: SLF001 - has no public name


def series() -> dict[str, frozenset[str]]:
    """Name of each series that we expose -> names of its own labels: what an expression may ask for."""
    found: dict[str, frozenset[str]] = {}
    for metric in (each for some in catalogue().values() for each in some):
        name, labels = name_of(metric), frozenset(labels_of(metric))
        if isinstance(metric, Histogram):
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found


def table(metrics_of_one: list[MetricWrapperBase]) -> str:
    """A row for each."""
    rows = []
    for metric in metrics_of_one:
        labels = ", ".join(f"`{label}`" for label in labels_of(metric))
        text = next(iter(metric.describe())).documentation
        rows.append(f"| `{name_of(metric)}` | {TYPES[type(metric)][0]} | {labels} | {text} |\n")
    return TABLE + "".join(rows)


def page() -> str:
    """The page's text."""
    all_ = catalogue()
    others = (f"## {who}\n\n{OTHERS[who]}\n\n{table(all_[who])}" for who in OTHERS)
    return HEAD + table(all_["Operator"]) + AFTER_OPERATOR + "\n".join(others)


def main() -> None:
    """Write the page."""
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page())


if __name__ == "__main__":
    exit_on_failure(main)
