"""`python -m tools.dashboard FILE`: the Grafana dashboard of the chart, from the table of its panels below."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tools.console import exit_on_failure

COLUMNS = 24
"""Of Grafana's grid."""
HEIGHT = 8
PER_ROW = 3

WHERE = 'namespace=~"$namespace"'
"""The namespaces that were chosen at the top."""


class Panel(NamedTuple):
    """One graph: `series` is (expression, legend), the unit one of Grafana's."""

    title: str
    unit: str
    series: tuple[tuple[str, str], ...]
    text: str = ""
    stacked: bool = False


def _of_one_replica(kind: str, *labels: str) -> str:
    """All replicas see the same resources: they are counted once."""
    by = ", ".join(labels)
    return f'sum by ({by}) (max by (phase, reason) (finetune_operator_objects{{kind="{kind}"}}))'


def _age(kind: str, matcher: str) -> str:
    since = f'finetune_operator_oldest_transition_timestamp_seconds{{kind="{kind}", {matcher}}}'
    return f"time() - min by (phase, reason) ({since})"


def _quantiles(histogram: str, matcher: str = "") -> tuple[tuple[str, str], ...]:
    selector = f"{{{matcher}}}" if matcher else ""
    rate = f"sum by (le) (rate({histogram}_bucket{selector}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {rate})", f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99))


def _rate(metric: str, *labels: str, where: str = "") -> str:
    """Per second, as Grafana's resolution allows."""
    return f"sum by ({', '.join(labels)}) (rate({metric}{{{where}}}[$__rate_interval]))"


def _within(window: str, metric: str, *labels: str, where: str = "") -> str:
    """The rise within the time before."""
    return f"sum by ({', '.join(labels)}) (increase({metric}{{{where}}}[{window}]))"


def _of_jobs(name: str) -> tuple[tuple[str, str], ...]:
    """A figure of each training pod."""
    return ((f"finetune_trainer_{name}{{{WHERE}}}", _TRAINING),)


_TRAINING = "{{namespace}}/{{finetune_dev_name}}"
_GPU_SECONDS = "finetune_operator_gpu_seconds_total"
_QUEUE = "finetune_operator_workqueue"
_LEADER = "finetune_operator_leader_election_master_status"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Jobs": (
        Panel("Jobs by phase", "short", ((_of_one_replica("FineTuneJob", "phase"), "{{phase}}"),), stacked=True),
        Panel(
            "Failures by reason",
            "short",
            ((_within("1h", "finetune_operator_failures_total", "kind", "reason"), "{{kind}} {{reason}}"),),
            "Within the hour before. The reasons are in docs/reference/failures.md.",
            stacked=True,
        ),
        Panel(
            "Longest without a change",
            "s",
            ((_age("FineTuneJob", 'phase!~"Succeeded|Failed|GateFailed|Suspended"'), "{{phase}}: {{reason}}"),),
            "Of the jobs that have not ended, by phase and reason.",
        ),
        Panel(
            "GPU-hours by namespace",
            "h",
            ((_within("1d", _GPU_SECONDS, "namespace", where=WHERE) + " / 3600", "{{namespace}}"),),
            "Of attempts that ended within the day before.",
            stacked=True,
        ),
        Panel(
            "GPU-hours by outcome",
            "h",
            ((_within("1d", _GPU_SECONDS, "outcome", where=WHERE) + " / 3600", "{{outcome}}"),),
            "What was paid for, by how the attempt ended.",
            stacked=True,
        ),
        Panel(
            "Wait in queues", "s", _quantiles("finetune_operator_queue_wait_seconds"), "Of attempts that were admitted."
        ),
    ),
    "Training": (
        Panel("Loss", "short", _of_jobs("loss")),
        Panel("Loss on held-out rows", "short", _of_jobs("eval_loss")),
        Panel("Tokens per second", "short", _of_jobs("tokens_per_second")),
        Panel(
            "Progress",
            "percentunit",
            ((f"finetune_trainer_step{{{WHERE}}} / (finetune_trainer_total_steps{{{WHERE}}} > 0)", _TRAINING),),
        ),
        Panel("Peak memory", "bytes", _of_jobs("peak_memory_bytes")),
        Panel(
            "Gates that failed",
            "short",
            ((_within("1d", "finetune_operator_gate_failures_total", "namespace", where=WHERE), "{{namespace}}"),),
            "Artifacts that did not pass spec.gate, within the day before.",
        ),
    ),
    "Serving": (
        Panel(
            "Requests per second",
            "reqps",
            ((_rate("tgi_request_count", "namespace", "model", where=WHERE), "{{namespace}}/{{model}}"),),
            "Of the Transformers and TGI engines.",
        ),
        Panel(
            "Requests that failed",
            "reqps",
            ((_rate("tgi_request_failure", "namespace", "err", where=WHERE), "{{namespace}}: {{err}}"),),
        ),
        Panel("Time to the last token", "s", _quantiles("tgi_request_duration", WHERE)),
        Panel("Waiting requests", "short", ((f"sum by (namespace) (tgi_queue_size{{{WHERE}}})", "{{namespace}}"),)),
        Panel(
            "Adapters by state",
            "short",
            ((f"sum by (adapter, state) (finetune_prober_adapter_state{{{WHERE}}})", "{{adapter}} {{state}}"),),
            "In how many pods an adapter is in a state.",
            stacked=True,
        ),
        Panel(
            "Deployments by phase", "short", ((_of_one_replica("ModelDeployment", "phase"), "{{phase}}"),), stacked=True
        ),
    ),
    "Operator": (
        Panel("Leader", "short", ((_LEADER, "{{pod}}"),), "1 for the one that works."),
        Panel(
            "Longest wait in the work queue",
            "s",
            ((f"max({_QUEUE}_oldest_key_seconds)", "waits now"), *_quantiles(f"{_QUEUE}_queue_duration_seconds")),
        ),
        Panel(
            "Passes",
            "ops",
            ((_rate("finetune_operator_reconcile_total", "kind", "result"), "{{kind}} {{result}}"),),
        ),
        Panel("Time of a pass", "s", _quantiles("finetune_operator_reconcile_time_seconds")),
        Panel(
            "Requests to the API server",
            "reqps",
            ((_rate("finetune_operator_rest_client_requests_total", "verb", "code"), "{{verb}} {{code}}"),),
            "Without the watches; code 0 is no answer.",
        ),
        Panel(
            "Memory",
            "bytes",
            ((f"process_resident_memory_bytes and on (instance) {_LEADER}", "{{pod}}"),),
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    height = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": height, "w": COLUMNS, "h": 1}})
        height += 1
        width = COLUMNS // PER_ROW
        for number, panel in enumerate(row):
            place = {"x": number % PER_ROW * width, "y": height + number // PER_ROW * HEIGHT, "w": width, "h": HEIGHT}
            panels.append(_graph(panel, place))
        height += -(-len(row) // PER_ROW) * HEIGHT
    return {
        "uid": "finetune-operator",
        "title": "Fine-tuning",
        "tags": ["finetune-operator"],
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_data_source(), _namespace()]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _graph(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    stacking = {"mode": "normal" if panel.stacked else "none"}
    custom = {"drawStyle": "line", "fillOpacity": 20 if panel.stacked else 0, "stacking": stacking}
    targets = [
        {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
        for number, (expression, legend) in enumerate(panel.series)
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _namespace() -> dict[str, Any]:
    # Of any metric with it: a namespace has no GPU-seconds before its first attempt has ended.
    metrics = f"finetune_trainer_step|finetune_prober_ready|{_GPU_SECONDS}"
    query = f'label_values({{__name__=~"{metrics}"}}, namespace)'
    return {
        "name": "namespace",
        "label": "Namespace",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "namespaces"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def main() -> None:
    """Write the file."""
    Path(sys.argv[1]).write_text(json.dumps(dashboard(), indent=1) + "\n")


if __name__ == "__main__":
    exit_on_failure(main)
