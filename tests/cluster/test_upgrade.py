"""The operator is restarted, upgraded, removed and put back while it has work: nothing is lost.

Everybody else on the cluster would be without an operator meanwhile, so that these run alone.
"""

from pathlib import Path

import pytest

from tests.cluster import release
from tests.cluster.kube import Kube
from tests.cluster.objects import dataset, deployment, job, text_dataset
from tests.cluster.training import LONGER, has_checkpoint, long_job, snapshot, training_jobs, training_pods

pytestmark = [pytest.mark.cluster, pytest.mark.exclusive]


@pytest.fixture(scope="module", autouse=True)
def _begun(lab: Kube) -> None:
    """What the second test needs is made while the first one waits."""
    lab.apply(text_dataset(), dataset(), job(), deployment())


def test_operator_restart_and_upgrade_in_the_middle_of_training(lab: Kube, system: Kube, tmp_path: Path) -> None:
    values = release.values()
    release.install(release.package(tmp_path, "0.0.9"), values, tmp_path)
    assert release.chart_version() == "0.0.9"
    lab.apply(long_job("survivor", hyperparameters=LONGER))
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


def test_uninstalled_and_installed_again_nothing_is_lost(lab: Kube, tmp_path: Path) -> None:
    lab.wait_ready("modeldeployment", "colours")
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
