"""A job's report with its gate, and comparing jobs."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from finetune_cli import __main__ as cli
from finetune_cli import report_page, stored
from finetune_cli.compare import comparison
from finetune_cli.errors import CliError
from finetune_cli.facts import Object
from finetune_contract.paths import evaluation_path
from finetune_store.__main__ import main as store_command
from finetune_store.store import Store
from tests.unit.cli.jobs import condition, ready_job
from tests.unit.cli.test_stored import prepare_job

KEY = "a" * 64
PAGE = b"<html>\xc3\xa4 " + report_page.MARK + report_page.COST_MARK + b"</html>"


def command(job: Object, file: str) -> list[str]:
    """What the reader's pod of a job would run, after `python -m finetune_store`."""
    pod = stored.reader(job, prepare_job(), stored._reference(job), file)
    found: list[str] = pod["spec"]["containers"][0]["command"][3:]
    return found


def job_with_report() -> Object:
    job = ready_job()
    job["kind"] = "FineTuneJob"
    job["metadata"].setdefault("uid", "u")
    job["status"]["artifact"] |= {"run": KEY, "uri": "pvc://claim/artifacts/x"}
    return job


@pytest.mark.parametrize("plan", [{"claim": "claim"}, {"training": {"claim": "claim"}}], ids=["trained", "measured"])
def test_a_jobs_report_is_that_of_its_run(plan: Object, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path, "claim").record(KEY, "report.html", PAGE.decode())
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    job, rest = job_with_report(), [f"--termination-log={tmp_path / 'log'}", f"--plan={tmp_path / 'plan.json'}"]
    assert store_command([*command(job, "report.html"), f"--store={tmp_path}", *rest]) == 0
    assert stored.unpacked(capfd.readouterr().out) == PAGE
    for missing in ("other.html", "../../../etc/passwd"):
        assert store_command([*command(job, missing), f"--store={tmp_path}", *rest]) != 0
        with pytest.raises(CliError, match="could not be read"):
            stored.unpacked(capfd.readouterr().out)


def test_the_report_is_written_with_the_gates_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = job_with_report()
    job["status"]["conditions"].append(condition("GatePassed", status="False", message="ExactMatch <b>"))
    job["status"]["gate"] = {"rules": [{"outcome": "Failed", "message": "ExactMatch 0.2 is not at least 0.9"}]}
    cluster = type("C", (), {"job": lambda _self, _name: job})()
    monkeypatch.setattr(cli, "connect", lambda *_: cluster)
    monkeypatch.setattr(stored, "fetch", lambda *_: PAGE)
    answer = CliRunner().invoke(cli.app, ["report", "job", "namer", "-o", str(tmp_path / "r.html")])
    assert answer.exit_code == 0, answer.output
    text = (tmp_path / "r.html").read_text()
    assert "<h2>Gate</h2>" in text
    assert "ExactMatch &lt;b&gt;" in text
    assert "Failed: ExactMatch 0.2" in text
    assert "No cost is known" in text


def test_the_report_has_what_the_run_has_cost() -> None:
    job = job_with_report()
    job["status"] |= {
        "cost": {"gpuHours": 12.5, "lostGpuHours": 0.4, "amount": 31.25, "currency": "EUR"},
        "speed": {"costPerMillionTokens": 0.21, "breakEvenTokens": 11_200_000, "currency": "<EUR>"},
    }
    text = report_page.with_status(PAGE, job).decode()
    assert "12.5 GPU-hours in all attempts, 0.4 of them lost" in text
    assert "31.25 EUR" in text
    assert "0.21 &lt;EUR&gt; at the measured speed" in text
    assert "after 11,200,000 tokens" in text
    job["status"]["speed"].pop("breakEvenTokens")
    assert "not against the API price" in report_page.with_status(PAGE, job).decode()


class Shelf:
    """A cluster whose reader pods really read a store."""

    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self.capfd, self.logs = root, capfd, list[str]()
        (root / "plan.json").write_text(json.dumps({"claim": "claim"}))

    def jobs_of_operator(self) -> list[Object]:
        return [prepare_job()]

    def create_pod(self, pod: Object) -> str:
        command = pod["spec"]["containers"][0]["command"][3:]
        rest = [f"--store={self.root}", f"--termination-log={self.root / 'log'}", f"--plan={self.root / 'plan.json'}"]
        store_command([*command, *rest])
        self.logs.append(self.capfd.readouterr().out)
        return "reader"

    def pod(self, _name: str) -> Object:
        return {"status": {"phase": "Succeeded"}}

    def log(self, _name: str) -> list[bytes]:
        return [self.logs[-1].encode()]

    def delete_pod(self, _name: str) -> None:
        """It is gone anyway."""


def test_a_report_is_that_of_the_artifact_and_of_what_was_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, cluster, job = Store(tmp_path, "claim"), Shelf(tmp_path, capfd), job_with_report()
    job["status"]["evaluationKey"] = "k1"
    store.record(KEY, "report.html", "of another pod")
    assert stored.fetch(cluster, job, "report.html") == b"of another pod"  # type: ignore[arg-type]
    digest = job["status"]["artifact"]["digest"]
    store.record(KEY, f"{evaluation_path(digest, 'k1')}/report.html", "its own")
    assert stored.fetch(cluster, job, "report.html") == b"its own"  # type: ignore[arg-type]


def test_the_log_of_an_attempt_whose_pod_is_gone_comes_from_the_store(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = job_with_report()
    job["status"] |= {"run": {"key": KEY, "attempt": 2}, "attempts": [{"number": 1}, {"number": 2}]}
    Store(tmp_path, "claim").record(KEY, "attempts/2/log.txt", "the second")
    assert stored.fetch_log(Shelf(tmp_path, capfd), job, None) == b"the second"  # type: ignore[arg-type]
    assert stored.has_log(job, None)
    assert stored.has_log(job, 1)
    assert not stored.has_log(job, 3)


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
    page = report_page.page_of(comparison([one, two]), "<x>")
    assert "<title>&lt;x&gt;" in page
    assert "0.250" in page
