"""ModelDeployments in `status`, against a server on loopback."""

import json
from typing import Any

import pytest
import yaml

from finetune_cli.facts import Object
from tests.unit.cli.apiserver import OURS, ApiServer, run
from tests.unit.cli.jobs import condition, make_job

DEPLOYMENT = ["support", "--kind", "deployment"]


def make_deployment(**status: Any) -> Object:
    """Two adapters, one of them proven, one that waits for its job."""
    words = "FineTuneJob 'router' has no artifact yet: its phase is Training"
    serving = {
        "observedGeneration": 2,
        "phase": "Updating",
        "url": "http://support.team.svc:8080/v1",
        "base": {"uri": "pvc://claim/bases/9f8b", "digest": "sha256:9f8b0d24c1aa7777"},
        "replicas": 2,
        "readyReplicas": 1,
        "adapters": [
            {
                "name": "triage",
                "state": "Serving",
                "since": "2026-01-01T10:00:00Z",
                "fineTuneJob": "triage",
                "verdict": "Failed",
                "gateIgnored": True,
                "digest": "sha256:460046ab90f1dddd",
            },
            {"name": "router", "state": "Pending", "fineTuneJob": "router", "message": words},
        ],
        "conditions": [condition("Ready", status=False, reason="AdapterPending", message=words)],
    }
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": "support",
            "namespace": "team",
            "generation": 2,
            "creationTimestamp": "2026-01-01T10:00:00Z",
        },
        "spec": {
            "engine": {"type": "VLLM"},
            "adapters": [{"name": name, "fineTuneJob": {"name": name}} for name in ("triage", "router")],
        },
        "status": {**serving, **status},
    }


def test_they_are_listed_below_the_jobs(api: ApiServer) -> None:
    api.add("finetunejobs", make_job())
    api.add("modeldeployments", make_deployment())
    *_, gap, head, line = run("status").stdout.splitlines()
    assert gap == ""
    assert head.split() == ["DEPLOYMENT", "PHASE", "PODS", "ADAPTERS", "REASON", "AGE"]
    assert "  ".join(line.split()).startswith("support  Updating  1  of  2  ready  1  of  2  serving  AdapterPending")
    kinds = [one["kind"] for one in json.loads(run("status", "-o", "json").stdout)["items"] if "kind" in one]
    assert kinds[-1] == "ModelDeployment"


def test_a_wide_status_tells_what_serves_what_where(api: ApiServer) -> None:
    api.add("modeldeployments", make_deployment())
    head, line = run("status", "-o", "wide").stdout.splitlines()
    assert head.split()[-3:] == ["ENGINE", "BASE", "ADDRESS"]
    assert line.split()[-3:] == ["VLLM", "9f8b0d24c1aa", "http://support.team.svc:8080/v1"]


def test_status_of_one(api: ApiServer) -> None:
    api.add("modeldeployments", make_deployment())
    shown = run("status", *DEPLOYMENT).stdout
    lines = {tuple(line.split()[:2]): line for line in shown.splitlines()}
    assert all(word in lines["triage", "Serving"] for word in ("Failed (ignored)", "460046ab90f1"))
    assert "has no artifact yet: its phase is Training" in lines["router", "Pending"]
    assert lines["Because", "FineTuneJob"].endswith("its phase is Training")
    assert "Canary" not in shown
    assert (
        yaml.safe_load(run("status", *DEPLOYMENT, "-o", "yaml").stdout)
        == api.objects[f"{OURS}/namespaces/team/modeldeployments/support"]
    )


def test_one_that_nobody_has_looked_at_yet(api: ApiServer) -> None:
    api.add("modeldeployments", {**make_deployment(), "status": {}})
    shown = run("status", *DEPLOYMENT).stdout
    assert "Pending" in shown
    assert "the operator has not seen it yet" in shown


def test_what_is_tried_and_what_did_not_hold(api: ApiServer) -> None:
    rolled_back = {
        "key": "0ld",
        "reason": "AdapterInert",
        "message": "answers like the base",
        "time": "2026-01-01T09:00:00Z",
    }
    rollout = {"canary": {"key": "n3w", "requests": 1200, "errors": 3}, "rolledBack": [rolled_back]}
    api.add("modeldeployments", make_deployment(rollout=rollout))
    shown = run("status", *DEPLOYMENT).stdout
    assert "n3w: not proven yet, 3 of 1,200 requests failed" in shown
    assert "AdapterInert, answers like the base" in shown


@pytest.mark.usefixtures("api")
def test_status_of_none_names_the_kind() -> None:
    assert "no ModelDeployment 'support' in namespace team" in run("status", *DEPLOYMENT).stderr
