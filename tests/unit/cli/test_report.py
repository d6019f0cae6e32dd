"""Fetching a report through a pod, and comparing jobs."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from finetune_cli import __main__ as cli
from finetune_cli import fetch, report
from finetune_cli.compare import comparison
from finetune_cli.errors import CliError
from finetune_cli.facts import Object
from finetune_contract.training import TrainingPlan
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import ResolvedInputs, Run
from finetune_operator.manifests import training
from finetune_operator.settings import Settings
from finetune_store.__main__ import main as store_command
from tests import factories
from tests.unit.cli.jobs import condition, make_job, ready_job

PAGE = b"<html>\xc3\xa4 " + report.MARK + b"</html>"
KEY = "a" * 64


def child() -> tuple[Object, TrainingPlan]:
    """A Job as the operator makes it, and its plan."""
    resource = factories.make_job(resources={"limits": {"nvidia.com/gpu": 1}})
    job = FineTuneJob.model_validate(resource)
    inputs = ResolvedInputs(
        dataset="sha256:" + "d" * 64, dataset_uri="pvc://c/d", base="sha256:" + "b" * 64, base_uri="pvc://c/b"
    )
    run = Run.model_validate({"key": KEY, "number": 1, "stage": "s", "startedAt": factories.NOW, "inputs": inputs})
    settings = Settings()
    manifest = training.build(job, run, 1, settings)[-1]
    manifest["metadata"]["creationTimestamp"] = "2026-11-21T10:00:00Z"
    return manifest, training.plan(job, run, 1, settings)


class Pods:
    """Runs the pod's command here."""

    namespace = "team"

    def __init__(self, store: Path, job: Object) -> None:
        self.store, self._job = store, job
        self.manifest, self.plan = child()
        self.ran: list[Object] = []

    def job(self, _name: str) -> Object:
        return self._job

    def job_children(self, _name: str) -> list[Object]:
        return [self.manifest]

    def run_pod(self, pod: Object, seconds: float) -> str:
        assert seconds >= 60
        self.ran.append(pod)
        (self.store / "plan.json").write_text(self.plan.to_json())
        command = pod["spec"]["containers"][0]["command"]
        assert command[:3] == ["python", "-m", "finetune_store"]
        arguments = [*command[3:], f"--plan={self.store / 'plan.json'}", f"--store={self.store}"]
        self.code = store_command(arguments)
        return self.capture.readouterr().out + "\n"

    capture: pytest.CaptureFixture[str]


@pytest.fixture
def pods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pods:
    found = Pods(tmp_path, ready_job())
    found.capture = capsys
    return found


def test_a_file_comes_out_as_it_went_in(pods: Pods) -> None:
    (pods.store / "runs" / KEY).mkdir(parents=True)
    (pods.store / "runs" / KEY / "report.html").write_bytes(PAGE * 9999)
    assert fetch.fetch(pods, "x", f"runs/{KEY}/report.html") == PAGE * 9999
    (pod,) = pods.ran
    (container,) = pod["spec"]["containers"]
    assert "nvidia.com/gpu" not in str(pod)
    assert container["resources"] == fetch.RESOURCES
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["spec"]["restartPolicy"] == "Never"
    assert len(pod["metadata"]["name"]) <= 63
    assert pods.manifest["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "train"


@pytest.mark.parametrize("path", ["runs/none/report.html", "../../etc/passwd", "/etc/passwd"])
def test_what_is_not_there_is_not_fetched(pods: Pods, path: str) -> None:
    with pytest.raises(CliError, match="could not be fetched"):
        fetch.fetch(pods, "x", path)
    assert pods.code != 0


def test_a_job_without_pods_says_so(pods: Pods) -> None:
    pods.manifest["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = []
    with pytest.raises(CliError, match="ttlAfterFinished"):
        fetch.fetch(pods, "x", "a")


def test_the_report_is_written_with_the_gates_verdict(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = ready_job()
    job["status"]["artifact"]["run"] = KEY
    job["status"]["conditions"].append(condition("GatePassed", status="False", message="ExactMatch <b>"))
    pods._job = job
    monkeypatch.setattr(cli, "connect", lambda *_: pods)
    monkeypatch.setattr(fetch, "fetch", lambda _cluster, _name, path: PAGE if KEY in path else b"")
    answer = CliRunner().invoke(cli.app, ["report", "job", "namer", "-o", str(tmp_path / "r.html")])
    assert answer.exit_code == 0, answer.output
    text = (tmp_path / "r.html").read_text()
    assert "<h2>Gate</h2>" in text
    assert "ExactMatch &lt;b&gt;" in text


def test_without_an_artifact_there_is_no_report() -> None:
    with pytest.raises(CliError, match="has no artifact yet"):
        report.path_of(make_job())


def text_of(*jobs: Object) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(comparison(list(jobs)))
    return console.export_text()


def test_jobs_are_compared_by_what_was_measured() -> None:
    one, two = ready_job(), ready_job()
    two["metadata"]["name"] = "other"
    two["status"]["evaluation"] = [
        {"metric": "ExactMatch", "system": "Tuned", "value": 0.5, "low": 0.4, "high": 0.6, "rows": 100},
        {"metric": "MacroF1", "system": "Tuned", "value": 0.25},
    ]
    two["status"].setdefault("run", {})["inputs"] = {"dataset": "sha256:other"}
    text = text_of(one, two)
    assert "0.500 [0.400, 0.600]" in text
    assert "MacroF1" in text
    assert "different dataset revisions" in text
    page = report.page_of(comparison([one, two]), "<x>")
    assert "<title>&lt;x&gt;" in page
    assert "0.250" in page
