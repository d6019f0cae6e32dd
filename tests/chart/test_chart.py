"""What the chart renders, and that its rights are exactly what the code uses."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest
import yaml

from finetune_operator.cluster import RESOURCES
from finetune_operator.settings import PREFIX, AcceleratorKind, Settings
from tests.chart.rendering import (
    CHART,
    NAMESPACE,
    ROOT,
    Manifest,
    deployment,
    environment,
    helm,
    needs_helm,
    of_kind,
    render,
    try_to_render,
)

pytestmark = needs_helm


def granted(roles: list[Manifest]) -> dict[tuple[str, str], set[str]]:
    """(group, resource) -> verbs."""
    rights: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for rule in (rule for role in roles for rule in role["rules"]):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                rights[group, resource] |= set(rule["verbs"])
    return dict(rights)


def used() -> Iterator[tuple[tuple[str, str], str]]:
    """What the operator may ask for."""
    for resource in RESOURCES.values():
        group = resource.api_version.rpartition("/")[0]
        for verb in resource.verbs:
            name, _, subresource = verb.partition("/")
            yield (group, f"{resource.plural}/{subresource}" if subresource else resource.plural), name


def needed() -> dict[tuple[str, str], set[str]]:
    rights: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for resource, verb in used():
        rights[resource].add(verb)
    return dict(rights)


def test_accelerators_and_prices_reach_the_operator() -> None:
    assert Settings.from_environment(environment(deployment())).accelerators == ()
    kinds = [
        {"name": "H100", "nodeSelector": {"gpu": "h100"}, "memoryGib": 79.6, "teraflops": 400, "pricePerHour": 2.5},
        {"name": "MI300X", "resource": "amd.com/gpu", "pricePerHour": 0},
    ]
    prices = 'prices={"currency": "EUR", "apiPerMillionTokens": 0.6}'
    settings = Settings.from_environment(environment(deployment(f"accelerators={json.dumps(kinds)}", prices)))
    assert (settings.currency, settings.api_price_per_million_tokens) == ("EUR", 0.6)
    assert settings.accelerators == (
        AcceleratorKind(name="H100", node_selector={"gpu": "h100"}, memory_gib=79.6, teraflops=400, price_per_hour=2.5),
        AcceleratorKind(name="MI300X", resource="amd.com/gpu", price_per_hour=0),
    )


def test_the_chart_passes_lint() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rights_are_exactly_what_the_code_uses() -> None:
    manifests = render("rbac.aggregateToDefaultRoles=false")
    roles = [*of_kind(manifests, "ClusterRole"), *of_kind(manifests, "Role")]
    assert granted(roles) == needed()


def test_no_right_is_a_wildcard_and_none_is_on_secrets() -> None:
    for role in of_kind(render(), "ClusterRole") + of_kind(render('watchNamespaces=["a"]'), "Role"):
        text = json.dumps(role["rules"])
        assert "*" not in text
        assert "secrets" not in text


def test_with_a_list_of_namespaces_there_is_no_cluster_role() -> None:
    manifests = render('watchNamespaces=["a","b"]', "rbac.aggregateToDefaultRoles=false")
    assert of_kind(manifests, "ClusterRole") == []
    roles = of_kind(manifests, "Role")
    assert {role["metadata"]["namespace"] for role in roles} == {"a", "b", NAMESPACE}
    assert granted(roles) == needed()
    (found,) = of_kind(manifests, "Deployment")
    assert environment(found)[PREFIX + "NAMESPACES"] == "a,b"


def test_the_lease_is_in_our_namespace_only() -> None:
    for role in of_kind(render(), "ClusterRole"):
        assert "leases" not in json.dumps(role["rules"])


def test_the_pod_passes_pod_security_restricted() -> None:
    pod = deployment()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_variable_is_a_setting_with_a_valid_value() -> None:
    variables = environment(deployment('settings={"workers": 16, "resync_seconds": 5}'))
    for name in variables:
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, name
    settings = Settings.from_environment(variables)
    assert (settings.workers, settings.resync_seconds) == (16, 5)


def test_the_store_may_be_in_s3() -> None:
    assert Settings.from_environment(environment(deployment())).s3_uri is None
    store = {"uri": "s3://models/{namespace}", "endpoint": "https://minio:9000", "credentialsSecretName": "keys"}
    settings = Settings.from_environment(environment(deployment(f"storage.s3={json.dumps(store)}")))
    assert (settings.s3_uri, settings.s3_endpoint, settings.s3_region, settings.s3_secret) == (
        "s3://models/{namespace}",
        "https://minio:9000",
        None,
        "keys",
    )


@pytest.mark.parametrize("uri", ["models/x", "s3://models/", "s3://models//x", "s3://Models", "http://models"])
def test_a_store_that_is_no_address_is_refused(uri: str) -> None:
    done = helm("template", "x", str(CHART), "--kube-version", "1.34", "--set-string", f"storage.s3.uri={uri}")
    assert done.returncode != 0
    assert "uri" in done.stderr


def test_nothing_is_deleted_unless_retention_is_on() -> None:
    assert Settings.from_environment(environment(deployment())).retention_minimum_age_seconds is None
    hours = '{"enabled": true, "minimumAgeHours": 48, "intervalHours": 24}'
    settings = Settings.from_environment(environment(deployment(f"storage.retention={hours}")))
    assert (settings.retention_minimum_age_seconds, settings.collection_interval_seconds) == (172800, 86400)


def test_looks_that_are_too_far_apart_are_refused() -> None:
    hours = 'storage.retention={"enabled": true, "minimumAgeHours": 24, "intervalHours": 24}'
    done = try_to_render(hours)
    assert done.returncode != 0
    assert "at most half of minimumAgeHours" in done.stderr


def test_the_defaults_of_chart_and_code_are_the_same() -> None:
    variables = environment(deployment())
    settings, defaults = Settings.from_environment(variables), Settings()
    for name in ("namespaces", "claim_name", "claim_storage_class", "claim_access_mode", "claim_size", "health_port"):
        assert getattr(settings, name) == getattr(defaults, name), name


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], r"finetune-operator:\d+\.\d+\.\d+"),
        (['image={"repository":"r/o","tag":"v1"}'], r"r/o:v1"),
        ([f'image={{"repository":"r/o","tag":"v1","digest":"sha256:{"a" * 64}"}}'], rf"r/o@sha256:{'a' * 64}"),
    ],
    ids=["default", "tag", "digest"],
)
def test_the_operator_passes_its_own_image_on(values: list[str], expected: str) -> None:
    found = deployment(*values)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert re.fullmatch(expected, container["image"])
    assert environment(found)[PREFIX + "OPERATOR_IMAGE"] == container["image"]


@pytest.mark.parametrize("keep", [True, False])
def test_the_crds_are_those_that_are_generated(keep: bool) -> None:
    rendered = {
        m["metadata"]["name"]: m for m in of_kind(render(f"crds.keep={json.dumps(keep)}"), "CustomResourceDefinition")
    }
    generated = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
    assert {crd["metadata"]["name"] for crd in generated} == set(rendered)
    for crd in generated:
        found = rendered[crd["metadata"]["name"]]
        assert found["spec"] == crd["spec"]
        policy = (found["metadata"].get("annotations") or {}).get("helm.sh/resource-policy")
        assert policy == ("keep" if keep else None)


def test_the_crds_can_be_left_out() -> None:
    assert of_kind(render("crds.enabled=false"), "CustomResourceDefinition") == []


def test_users_may_view_and_edit_what_they_may_view_and_edit() -> None:
    roles = {role["metadata"]["name"]: role for role in of_kind(render(), "ClusterRole")}
    view, edit = roles["finetune-operator-view"], roles["finetune-operator-edit"]
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert all(not resource.endswith("/status") for _, resource in granted([view, edit]))


def test_a_budget_is_there_when_it_is_wanted() -> None:
    assert of_kind(render(), "PodDisruptionBudget") == []
    wanted = render("podDisruptionBudget.enabled=true")
    (budget,), (found,) = of_kind(wanted, "PodDisruptionBudget"), of_kind(wanted, "Deployment")
    labels = found["spec"]["template"]["metadata"]["labels"]
    for part in (budget, found):
        assert part["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_our_own_pods_are_not_taken_for_children() -> None:
    for manifest in render():
        labels = manifest["metadata"].get("labels", {})
        assert labels.get("app.kubernetes.io/managed-by") == "Helm", manifest["kind"]
