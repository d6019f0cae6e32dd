"""A run's life on a real cluster: it ends once, whatever is killed, re-applied or deleted on the way."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.chart.expressions import series_of
from tests.cluster import release
from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, deployment, job, text_dataset
from tests.cluster.prometheus import Prometheus, prometheus

pytestmark = pytest.mark.cluster

LONG = {"epochs": 100, "learningRate": 0.001, "globalBatchSize": 4, "packing": False}
"""6,000 steps, some 40 s on two idle cores: long enough to be interrupted."""

OFTEN = {"intervalMinutes": 0.05, "gracePeriodSeconds": 30}


def long_job(name: str, **spec: object) -> Object:
    default = {
        "dataset": {"name": "sentences"},
        "method": "CPT",
        "adapter": {"type": "None"},
        "hyperparameters": LONG,
        "checkpoints": OFTEN,
        "evaluation": {"metrics": []},
    }
    return job(name, **{**default, **spec})


def training_jobs(kube: Kube, name: str) -> list[Object]:
    return kube.find("jobs", f"finetune.dev/role=train,finetune.dev/name={name}")


def training_pods(kube: Kube, name: str) -> list[Object]:
    return kube.find("pods", f"finetune.dev/role=train,finetune.dev/name={name}")


def has_checkpoint(kube: Kube, name: str) -> Callable[[], bool]:
    return lambda: bool((kube.status("finetunejob", name).get("progress") or {}).get("checkpointStep"))


@pytest.fixture(scope="module", autouse=True)
def _sentences(lab: Kube) -> None:
    lab.apply(text_dataset())


def test_operator_restart_and_upgrade_in_the_middle_of_training(lab: Kube, system: Kube, tmp_path: Path) -> None:
    values = release.values()
    release.install(release.package(tmp_path, "0.0.9"), values, tmp_path)
    assert release.chart_version() == "0.0.9"
    lab.apply(long_job("survivor"))
    lab.wait("a first step", has_checkpoint(lab, "survivor"), 120)
    before = {pod["metadata"]["uid"] for pod in training_pods(lab, "survivor")}
    system.kubectl("delete", "pods", "-l", "app.kubernetes.io/name=finetune-operator", "--grace-period=0", "--force")
    release.install(release.CHART, values, tmp_path)
    assert release.chart_version() != "0.0.9"
    assert [pod["status"]["phase"] for pod in training_pods(lab, "survivor")] == ["Running"], "an upgrade of its middle"
    status = lab.wait_ready("finetunejob", "survivor", 240)
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Succeeded"]
    assert {pod["metadata"]["uid"] for pod in training_pods(lab, "survivor")} == before
    assert len(training_jobs(lab, "survivor")) == 1


def evict(kube: Kube, pod: str) -> None:
    """As `kubectl drain` does."""
    path = f"/api/v1/namespaces/{kube.namespace}/pods/{pod}/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": kube.namespace}}
    kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def kill(kube: Kube, pod: str) -> None:
    kube.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=0", "--force")


@pytest.mark.parametrize(
    ("name", "lose", "reasons"),
    [
        ("evicted", evict, {"Preempted"}),
        ("killed", kill, {"Preempted", "PodDeleted", "Unknown", "NodeLost"}),
    ],
    ids=["evicted, with its grace period", "killed at once"],
)
def test_a_pod_lost_in_the_middle_costs_no_weight(
    lab: Kube, name: str, lose: Callable[[Kube, str], None], reasons: set[str]
) -> None:
    lab.apply(long_job("survivor"), long_job(name, reuse="Never"))
    lab.wait("a first checkpoint", has_checkpoint(lab, name), 120)
    for pod in training_pods(lab, name):
        lose(lab, pod["metadata"]["name"])
    status = lab.wait_ready("finetunejob", name, 300)
    first, second = status["attempts"]
    assert first["reason"] in reasons
    assert second["reason"] == "Succeeded"
    assert second["resumedFromStep"] > 0
    assert status["progress"]["step"] == status["progress"]["totalSteps"]
    uninterrupted = lab.wait_ready("finetunejob", "survivor", 240)
    assert status["run"]["key"] != uninterrupted["run"]["key"], "it was trained, not taken over"
    assert status["artifact"]["digest"] == uninterrupted["artifact"]["digest"]


YAMLS = [dataset(), job(), deployment()]


class TestTheThreeYamls:
    """In order: each test goes on where the one before ended."""

    def test_apply_all_at_once(self, lab: Kube) -> None:
        lab.apply(*YAMLS)
        lab.wait_ready("dataset", "colours")
        status = lab.wait_ready("finetunejob", "colour-namer")
        scores = {(score["metric"], score["system"]): score["value"] for score in status["evaluation"]}
        assert scores["EvalLoss", "Tuned"] < scores["EvalLoss", "ZeroShot"]
        lab.wait_ready("modeldeployment", "colours")

    def test_second_apply_changes_nothing(self, lab: Kube) -> None:
        before = snapshot(lab)
        assert "configured" not in lab.apply(*YAMLS)
        lab.kubectl("annotate", "finetunejob", "colour-namer", f"touched={id(before)}", "--overwrite")
        lab.kubectl("annotate", "dataset", "colours", f"touched={id(before)}", "--overwrite")
        lab.wait("a pass after the re-apply", lambda: lab.status("finetunejob", "colour-namer").get("phase"))
        assert snapshot(lab) == before

    def test_prometheus_finds_operator_trainer_and_server(self, lab: Kube, tmp_path: Path) -> None:
        on = ("podMonitor", "prometheusRule", "dashboard")
        manifests = release.rendered(*(f"metrics.{part}.enabled=true" for part in on))
        bad = dataset("unreadable", source={"inline": {"jsonl": '{"no": "row"}'}})
        lab.apply(long_job("watched", hyperparameters={**LONG, "seed": 4}), bad)
        try:
            with prometheus(manifests, tmp_path) as found:
                for what, expression in scraped(lab.namespace).items():
                    lab.wait(f"{what} in Prometheus", partial(is_found, found, lab, expression), 60)
                lab.wait("every rule to be evaluated without an error", lambda: all_are_evaluated(found))
                alerts = found.rules()
                assert alerts["FinetuneOperatorNoLeader"]["state"] == "inactive"
                assert alerts["FineTuneFailures"]["state"] == "firing"
                asked = {name for rule in alerts.values() for name in series_of(rule["query"])}
                assert {name for name in asked if not found.query(name)} <= ONLY_AFTER_TROUBLE
                for expression in panels_of(manifests):
                    found.query(expression)
        finally:
            lab.kubectl("delete", "finetunejob/watched", "dataset/unreadable")

    def test_uninstalled_and_installed_again_nothing_is_lost(self, lab: Kube, tmp_path: Path) -> None:
        others = "finetune.dev/name in (watched, unreadable)"
        lab.wait("what the test before made to go", lambda: not lab.find("jobs,configmaps,pods", others))
        before, values = snapshot(lab), release.values()
        stored = lab.status("finetunejob", "colour-namer")["artifact"]
        release.uninstall()
        try:
            assert lab.status("finetunejob", "colour-namer")["artifact"] == stored
            assert snapshot(lab) == before
            (server,) = lab.find("pods", "finetune.dev/role=serve")
            assert server["status"]["phase"] == "Running"
            lab.apply(text_dataset("nobody-looks"))
            # No finalizer: what nobody serves any more can be deleted.
            lab.kubectl("delete", "dataset", "nobody-looks", "--timeout=20s")
        finally:
            release.install(release.CHART, values, tmp_path)
        lab.wait_ready("modeldeployment", "colours")
        assert snapshot(lab) == before

    def test_recreated_job_adopts_the_stored_result(self, lab: Kube) -> None:
        before = lab.status("finetunejob", "colour-namer")
        lab.kubectl("delete", "finetunejob", "colour-namer")
        lab.wait("its children to go", lambda: not training_jobs(lab, "colour-namer"))
        lab.apply(job())
        after = lab.wait_ready("finetunejob", "colour-namer")
        assert after["artifact"] == before["artifact"]
        assert after["run"]["key"] == before["run"]["key"]
        assert training_jobs(lab, "colour-namer") == []

    def test_delete_everything_leaves_only_what_is_stored(self, lab: Kube) -> None:
        lab.kubectl("delete", "modeldeployment,finetunejob,dataset", "--all")
        kinds = "jobs,deployments,services,configmaps,pods"
        lab.wait(
            "every child to go", lambda: not lab.find(kinds, "app.kubernetes.io/managed-by=finetune-operator"), 240
        )
        assert lab.get("pvc", "finetune-artifacts") is not None
        lab.kubectl("delete", "pod", "tiny-base")
        lab.kubectl("delete", "namespace", lab.namespace, "--timeout=60s")


ONLY_AFTER_TROUBLE = {"finetune_operator_sweep_repairs_total", "finetune_operator_gate_failures_total"}
"""Counters that have no series on a cluster where nothing of the kind has happened."""


def scraped(namespace: str) -> dict[str, str]:
    """What must be there while `watched` trains, `colours` serves and a Dataset has failed -> an expression for it."""
    here = f'namespace="{namespace}"'
    return {
        "the operator": "finetune_operator_leader_election_master_status == 1",
        "what it counts of this namespace": f"finetune_operator_gpu_seconds_total{{{here}}} > 0",
        "a failure": 'finetune_operator_failures_total{kind="Dataset"} > 0',
        "the trainer": f'finetune_trainer_step{{{here}, finetune_dev_name="watched", finetune_dev_role="train"}} > 0',
        "the prober": f'finetune_prober_ready{{{here}, finetune_dev_name="colours", finetune_dev_role="serve"}} == 1',
        "the adapter": f'finetune_prober_adapter_state{{{here}, adapter="namer", state="Serving"}} == 1',
        "the engine": f'tgi_queue_size{{{here}, finetune_dev_name="colours"}}',
    }


def is_found(found: Prometheus, kube: Kube, expression: str) -> bool:
    found.discover(kube.find_everywhere("pods"))
    return bool(found.query(expression))


def all_are_evaluated(found: Prometheus) -> bool:
    return all(rule["health"] == "ok" for rule in found.rules().values())


def panels_of(manifests: list[Object]) -> list[str]:
    """Expressions of the dashboard, as Grafana sends them."""
    (found,) = [each for each in manifests if each["metadata"]["name"].endswith("-dashboard")]
    panels = json.loads(found["data"]["finetune-operator.json"])["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [each.replace("$__rate_interval", "10s").replace("$namespace", ".*") for each in asked]


def snapshot(kube: Kube) -> dict[str, str]:
    """Every child and its version; pods of deployments may report their readiness again, so they are left out."""
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"]
        for item in kube.find("jobs,configmaps,deployments,services", "app.kubernetes.io/managed-by=finetune-operator")
    }
