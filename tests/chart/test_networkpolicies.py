"""NetworkPolicies: each pod is selected by those that its role needs, and they let through what the code uses."""

import json
from functools import cache
from typing import Any

import pytest

from finetune_contract.paths import POD_PORT, PROBER_PORT
from tests.chart.rendering import NAMESPACE, Manifest, named, needs_helm, of_kind, render, try_to_render
from tests.chart.test_monitoring import selects
from tests.unit.manifests.objects import every_object

pytestmark = needs_helm

ON = "networkPolicies.enabled=true"
TEAM = 'networkPolicies.namespaces=["team-a"]'
S3 = [{"to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}], "ports": [{"port": 9000, "protocol": "TCP"}]}]
JUDGE = [{"ports": [{"port": 4430, "protocol": "TCP"}]}]
DNS = {("any", 53)}
WEB = {("any", 443), ("any", 80)}


def policies(*values: str, namespace: str = "team-a") -> list[Manifest]:
    found = of_kind(render(ON, TEAM, *values), "NetworkPolicy")
    return [each for each in found if each["metadata"]["namespace"] == namespace]


def peer(each: Manifest) -> str:
    """A peer in a word."""
    if "ipBlock" in each:
        return str(each["ipBlock"]["cidr"])
    labels = each.get("podSelector", {}).get("matchLabels", {})
    where = each.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    if labels.get("finetune.dev/role"):
        return str(labels["finetune.dev/role"])
    if labels.get("app.kubernetes.io/name"):
        return "operator" if where == NAMESPACE else "operator elsewhere"
    return str(where or ("same namespace" if "namespaceSelector" not in each else "our pods anywhere"))


def allowed(found: list[Manifest], labels: Manifest, direction: str) -> set[tuple[str, Any]]:
    """(peer, port) that the policies let through for a pod with these labels; all of them select it, or it is open."""
    chosen = [each["spec"] for each in found if selects(each["spec"]["podSelector"], labels)]
    assert any(direction.capitalize() in spec["policyTypes"] for spec in chosen), labels
    sides = {"ingress": "from", "egress": "to"}
    return {
        (who, port)
        for spec in chosen
        for rule in spec.get(direction, ())
        for who in ([peer(each) for each in rule[sides[direction]]] if sides[direction] in rule else ["any"])
        for port in ([each["port"] for each in rule["ports"]] if "ports" in rule else ["every"])
    }


@cache
def pod_labels() -> dict[str, Manifest]:
    """Role -> labels of such a pod, as the code builds them."""
    templates = [item["spec"]["template"] for _, item in every_object() if "template" in item.get("spec", {})]
    return {
        template["metadata"]["labels"]["finetune.dev/role"]: template["metadata"]["labels"] for template in templates
    }


WATCHERS = {("operator", POD_PORT), ("monitoring", POD_PORT)}
SERVED: tuple[set[tuple[str, Any]], set[tuple[str, Any]]] = (
    WATCHERS | {("same namespace", POD_PORT), ("operator", PROBER_PORT), ("monitoring", PROBER_PORT)},
    DNS,
)
EXPECTED: dict[str, tuple[set[tuple[str, Any]], set[tuple[str, Any]]]] = {
    "train": (WATCHERS | {("train", "every")}, DNS | {("train", "every")}),
    "serve": SERVED,
    "canary": SERVED,
    "merge": (set(), DNS),
    "prepare": (set(), DNS | WEB),
    "stage": (set(), DNS | WEB),
    "export": (set(), DNS | WEB),
    "batch": (WATCHERS, DNS | WEB),
    "evaluate": (set(), DNS),
    "preflight": (set(), DNS),
    "resolve": (set(), DNS),
    "collect": (set(), DNS),
}
"""Role -> what may come in, what may go out, with the default values."""


def test_every_role_is_thought_of() -> None:
    assert set(pod_labels()) == set(EXPECTED)


@pytest.mark.parametrize("role", EXPECTED)
def test_a_pod_may_reach_and_be_reached_by_what_it_needs(role: str) -> None:
    labels, (ingress, egress) = pod_labels()[role], EXPECTED[role]
    found = policies()
    assert allowed(found, labels, "ingress") == ingress
    assert allowed(found, labels, "egress") == egress


def test_a_store_in_s3_is_reached_by_all_and_a_judge_by_those_that_ask_it() -> None:
    found = policies(f"networkPolicies.storage={json.dumps(S3)}", f"networkPolicies.training={json.dumps(JUDGE)}")
    for role, labels in pod_labels().items():
        more = {("10.0.0.9/32", 9000)} | ({("any", 4430)} if role in ("train", "evaluate") else set())
        assert allowed(found, labels, "egress") == EXPECTED[role][1] | more, role


def test_a_store_in_s3_that_nobody_could_reach_is_refused() -> None:
    done = try_to_render(ON, TEAM, 'storage.s3={"uri": "s3://models/x"}')
    assert done.returncode != 0
    assert "networkPolicies.storage is empty" in done.stderr


def test_clients_and_prometheus_are_those_that_are_chosen() -> None:
    gateway = (
        'networkPolicies.clients=[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]'
    )
    ingress = allowed(policies(gateway, "networkPolicies.prometheus=[]"), pod_labels()["serve"], "ingress")
    assert ingress == {("gateway", POD_PORT), ("operator", POD_PORT), ("operator", PROBER_PORT)}
    nobody = allowed(policies("networkPolicies.clients=[]"), pod_labels()["serve"], "ingress")
    assert ("same namespace", POD_PORT) not in nobody


def test_the_operator_reaches_the_api_server_and_our_pods_and_is_reached_by_prometheus() -> None:
    rendered = render(ON)
    policy = named(rendered, "NetworkPolicy", "finetune-operator")
    labels = of_kind(rendered, "Deployment")[0]["spec"]["template"]["metadata"]["labels"]
    assert allowed([policy], labels, "ingress") == {("monitoring", 8080)}
    assert allowed([policy], labels, "egress") == DNS | {
        ("any", 443),
        ("any", 6443),
        ("our pods anywhere", POD_PORT),
        ("our pods anywhere", PROBER_PORT),
    }
    assert len(of_kind(rendered, "NetworkPolicy")) == 1, "no namespaces were named"


def test_namespaces_are_those_that_are_served_unless_others_are_named() -> None:
    served = of_kind(render(ON, 'watchNamespaces=["a","b"]'), "NetworkPolicy")
    assert {each["metadata"]["namespace"] for each in served} == {"a", "b", NAMESPACE}
    chosen = of_kind(render(ON, 'watchNamespaces=["a","b"]', 'networkPolicies.namespaces=["a"]'), "NetworkPolicy")
    assert {each["metadata"]["namespace"] for each in chosen} == {"a", NAMESPACE}
