"""Alerts, dashboard and monitors: they parse, they ask for what there is, and every alert fires and stays quiet."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from finetune_contract.paths import POD_PORT
from tests.chart.expressions import grouping_labels, matched_labels, series_of
from tests.chart.promtool import check_rules, needs_promtool, promtool
from tests.chart.rendering import ROOT, Manifest, named, needs_helm, of_kind, render, try_to_render
from tests.unit.manifests.objects import every_object
from tools import metrics_page

pytestmark = needs_helm

UNIT_TESTS = Path(__file__).with_name("alerts_test.yaml")
RUNBOOKS = ROOT / "docs" / "operating" / "alerts.md"
OF_THE_CLIENT_LIBRARY = {"process_resident_memory_bytes"}
OF_THE_TARGET = {"namespace", "pod", "instance", "job", "container", "finetune_dev_name", "finetune_dev_role"}
"""Labels that Prometheus adds to what it scrapes by our PodMonitors."""
ALL = (
    "metrics.podMonitor.enabled=true",
    "metrics.prometheusRule.enabled=true",
    "metrics.dashboard.enabled=true",
)


@pytest.fixture(scope="module")
def groups() -> list[Manifest]:
    return list(named(render(*ALL), "PrometheusRule", "finetune-operator")["spec"]["groups"])


@pytest.fixture(scope="module")
def alerts(groups: list[Manifest]) -> dict[str, Manifest]:
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.fixture(scope="module")
def dashboard() -> Manifest:
    config_map = named(render(*ALL), "ConfigMap", "finetune-operator-dashboard")
    return dict(json.loads(config_map["data"]["finetune-operator.json"]))


def panel_expressions(dashboard: Manifest) -> list[str]:
    """As Grafana sends them."""
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [each.replace("$__rate_interval", "2m").replace("$namespace", ".*") for each in found]


@needs_promtool
def test_every_alert_fires_and_stays_quiet(groups: list[Manifest], tmp_path: Path) -> None:
    check_rules(tmp_path / "alerts.yaml", groups)
    shutil.copy(UNIT_TESTS, tmp_path)
    done = promtool("test", "rules", tmp_path / UNIT_TESTS.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_of_each_kind(alerts: dict[str, Manifest]) -> None:
    cases = [case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(alerts)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(alerts)


def test_every_alert_says_what_and_links_to_its_section(alerts: dict[str, Manifest]) -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert headings == list(alerts)
    for name, rule in alerts.items():
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/operating/alerts.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name


def test_alerts_can_be_tuned_and_routed(tmp_path: Path) -> None:
    manifests = render(
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.thresholds.pendingMinutes=15",
        "metrics.prometheusRule.thresholds.notServingMinutes=100000",
        'metrics.prometheusRule.alertLabels={"team": "ml"}',
        'metrics.prometheusRule.labels={"release": "prometheus"}',
        'metrics.prometheusRule.runbookUrl="https://docs.example.com/alerts"',
    )
    rule = named(manifests, "PrometheusRule", "finetune-operator")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    alerts = {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"]}
    stuck = alerts["FineTuneJobStuckPending"]
    assert stuck["expr"].endswith("> 60 * 15")
    assert stuck["labels"] == {"severity": "warning", "team": "ml"}
    assert stuck["annotations"]["runbook_url"] == "https://docs.example.com/alerts#finetunejobstuckpending"
    assert alerts["FineTuneAdapterNotServing"]["for"] == "100000m"


def test_no_threshold_is_forgotten(groups: list[Manifest]) -> None:
    assert "$(" not in json.dumps(groups)


@needs_promtool
def test_every_expression_of_the_dashboard_parses(dashboard: Manifest, tmp_path: Path) -> None:
    expressions = panel_expressions(dashboard)
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions)]
    check_rules(tmp_path / "panels.yaml", [{"name": "panels", "rules": rules}])
    wrong = [{"record": "panel:wrong", "expr": expressions[0] + ")"}]
    with pytest.raises(AssertionError, match="unexpected"):
        check_rules(tmp_path / "wrong.yaml", [{"name": "panels", "rules": wrong}])


def test_alerts_and_panels_ask_for_series_and_labels_that_there_are(
    alerts: dict[str, Manifest], dashboard: Manifest
) -> None:
    known = metrics_page.series() | dict.fromkeys(OF_THE_CLIENT_LIBRARY, frozenset())
    asked = [*(rule["expr"] for rule in alerts.values()), *panel_expressions(dashboard)]
    assert len(asked) > 40
    for expression in asked:
        names = series_of(expression)
        assert names, expression
        assert names <= set(known), expression
        for name, label in matched_labels(expression):
            assert label in known[name] | OF_THE_TARGET, expression
        everywhere = frozenset().union(*(known[name] for name in names)) | OF_THE_TARGET
        assert grouping_labels(expression) <= everywhere, expression


def test_a_series_that_is_not_there_would_be_noticed() -> None:
    expression = 'sum by (kind) (rate(finetune_operator_reconcile{result="error", of="a"}[5m] offset 5m)) > bool 2'
    assert series_of(expression) == {"finetune_operator_reconcile"}
    assert matched_labels(expression) == {
        ("finetune_operator_reconcile", "result"),
        ("finetune_operator_reconcile", "of"),
    }
    assert grouping_labels(expression) == {"kind"}


def test_the_sidecar_finds_the_dashboard() -> None:
    values = ('metrics.dashboard.annotations={"grafana_folder": "Fine-tuning"}',)
    metadata = named(render(*ALL, *values), "ConfigMap", "finetune-operator-dashboard")["metadata"]
    assert metadata["labels"]["grafana_dashboard"] == "1"
    assert metadata["annotations"] == {"grafana_folder": "Fine-tuning"}


def test_panels_do_not_overlap(dashboard: Manifest) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_monitors_are_off_until_they_are_wanted() -> None:
    kinds = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "NetworkPolicy", "Service", "ConfigMap"}
    assert kinds.isdisjoint({manifest["kind"] for manifest in render()})


def selects(selector: Manifest, labels: Manifest) -> bool:
    """Whether a label selector, as far as our monitors use them, takes an object."""
    wanted = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    return wanted and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ()))


def named_ports(pod: Manifest) -> set[str]:
    return {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", ())}


def test_the_operator_is_scraped_by_one_monitor() -> None:
    both = try_to_render("metrics.podMonitor.enabled=true", "metrics.serviceMonitor.enabled=true")
    assert both.returncode != 0
    assert "enable one of them" in both.stderr
    pod = of_kind(render(), "Deployment")[0]["spec"]["template"]
    monitor = named(render("metrics.podMonitor.enabled=true"), "PodMonitor", "finetune-operator")["spec"]
    assert selects(monitor["selector"], pod["metadata"]["labels"])
    assert {each["port"] for each in monitor["podMetricsEndpoints"]} <= named_ports(pod)
    rendered = render("metrics.serviceMonitor.enabled=true")
    (service,), (monitor,) = of_kind(rendered, "Service"), of_kind(rendered, "ServiceMonitor")
    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert selects({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_pods_that_load_models_for_long_are_scraped_and_no_others() -> None:
    monitor = named(render("metrics.podMonitor.enabled=true"), "PodMonitor", "finetune-operator-workloads")["spec"]
    assert monitor["namespaceSelector"] == {"any": True}
    ports = {each["port"] for each in monitor["podMetricsEndpoints"]}
    roles = set()
    for name, item in every_object():
        template = item.get("spec", {}).get("template")
        if template is None:
            continue
        labels = template["metadata"]["labels"]
        serves = bool(named_ports(template) & ports)
        assert selects(monitor["selector"], labels) is serves, name
        roles |= {labels["finetune.dev/role"]} if serves else set()
    assert roles == {"train", "batch", "serve", "canary"}
    assert POD_PORT == 8080, "as the NetworkPolicies and the documentation say"


def test_only_pods_of_served_namespaces_are_scraped() -> None:
    values = ("metrics.podMonitor.enabled=true", 'watchNamespaces=["a","b"]')
    monitor = named(render(*values), "PodMonitor", "finetune-operator-workloads")["spec"]
    assert monitor["namespaceSelector"] == {"matchNames": ["a", "b"]}
    alone = render("metrics.podMonitor.enabled=true", "metrics.podMonitor.workloads=false")
    assert [each["metadata"]["name"] for each in of_kind(alone, "PodMonitor")] == ["finetune-operator"]
