"""A run's life on a real cluster: it ends once, whatever is re-applied or deleted on the way."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.chart.expressions import series_of
from tests.cluster import release
from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, deployment, job, text_dataset
from tests.cluster.prometheus import Prometheus, prometheus
from tests.cluster.training import LONGER, long_job, snapshot, training_jobs

pytestmark = pytest.mark.cluster

YAMLS = [dataset(), job(), deployment()]


@pytest.fixture(scope="module", autouse=True)
def _sentences(lab: Kube) -> None:
    lab.apply(text_dataset())


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
        lab.apply(long_job("watched", hyperparameters={**LONGER, "seed": 4}), bad)
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
