"""submit, events, cancel and formats of an answer, against a server on loopback; and what goes wrong there."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from finetune_cli import watch
from finetune_cli.commands.events import about
from finetune_cli.facts import Object
from tests import factories
from tests.unit.cli.apiserver import OURS, ApiServer, kubeconfig, run
from tests.unit.cli.conftest import KUBECONFIG
from tests.unit.cli.jobs import failed_job, gate_failed_job, make_job, ready_job

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

DEMO = str(EXAMPLES / "demo")

JOBS = f"{OURS}/namespaces/team/finetunejobs"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)


class TestSubmit:
    def test_datasets_come_first_and_each_is_told(self, api: ApiServer) -> None:
        result = run("submit", DEMO)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.splitlines() == [
            "dataset/docstrings created",
            "dataset/modules created",
            "finetunejob/python-base created",
            "finetunejob/module-namer created",
            "modeldeployment/assistant created",
        ]
        patches = [(path, query) for method, path, query, _ in api.asked if method == "PATCH"]
        assert patches[0][0] == f"{OURS}/namespaces/team/datasets/docstrings"
        assert patches[0][1] == {"fieldManager": "kubectl-finetune", "fieldValidation": "Strict", "force": "false"}

    @pytest.mark.usefixtures("api")
    def test_again_nothing_changes_and_an_edit_is_told(self, tmp_path: Path) -> None:
        file = tmp_path / "job.yaml"
        job = {**factories.make_job(), "metadata": {"name": "triage"}}
        words = []
        for method in ("SFT", "SFT", "CPT"):
            file.write_text(yaml.safe_dump({**job, "spec": {**job["spec"], "method": method}}))
            words.append(run("submit", str(file)).stdout.split()[-1])
        assert words == ["created", "unchanged", "configured"]

    def test_a_dry_run_changes_nothing(self, api: ApiServer) -> None:
        result = run("submit", DEMO, "--dry-run")
        assert (result.exit_code, api.objects) == (0, {})
        assert "dataset/docstrings created (dry run)" in result.stdout

    def test_bad_files_never_reach_the_server(self, api: ApiServer) -> None:
        bad = yaml.safe_dump({**factories.make_job(method="Magic"), "metadata": {"name": "triage"}})
        result = run("submit", "-", stdin=bad)
        assert (result.exit_code, result.stdout, api.asked) == (1, "", [])
        assert "spec.method: 'Magic' is not one of SFT" in result.stderr
        assert result.stderr.splitlines()[-1] == "error: nothing was applied; mend the files first"

    @pytest.mark.usefixtures("api")
    def test_files_of_other_kinds_are_left_to_kubectl(self) -> None:
        result = run("submit", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
        assert result.exit_code == 1
        assert "passed over: ConfigMap of v1" in result.stderr
        assert "error: the files hold no Dataset, FineTuneJob, ModelDeployment, BatchInference;" in result.stderr

    def test_fields_that_somebody_else_has_set(self, api: ApiServer) -> None:
        mine = {**factories.make_job(), "metadata": {"name": "triage"}}
        api.add("finetunejobs", {**mine, "spec": {}, "metadata": {"name": "triage", "managedBy": "argocd"}})
        refused = run("submit", "-", stdin=yaml.safe_dump(mine))
        assert refused.exit_code == 1
        assert 'conflict with "argocd": .spec.method; --force-conflicts takes these fields over' in refused.stderr
        assert run("submit", "-", "--force-conflicts", stdin=yaml.safe_dump(mine)).exit_code == 0

    def test_a_namespace_in_the_file_is_used_and_never_overruled(self, api: ApiServer) -> None:
        job = yaml.safe_dump({**factories.make_job(), "metadata": {"name": "triage", "namespace": "other"}})
        refused = run("submit", "-", "-n", "team", stdin=job)
        assert (refused.exit_code, api.objects) == (2, {})
        assert "the files say namespace other, and --namespace says team" in refused.stderr
        assert run("submit", "-", "--watch", stdin=job).exit_code == 2
        assert run("submit", "-", stdin=job).exit_code == 0
        assert list(api.objects) == [f"{OURS}/namespaces/other/finetunejobs/triage"]

    @pytest.mark.parametrize(
        ("ended", "exit_code"),
        [([ready_job], 0), ([failed_job], 1), ([gate_failed_job], 3), ([gate_failed_job, failed_job], 1)],
        ids=["ready", "failed", "gate failed", "a gate and a failure"],
    )
    def test_watch_ends_as_the_worst_job_does(
        self, api: ApiServer, ended: list[Callable[[], Object]], exit_code: int
    ) -> None:
        jobs = [{**factories.make_job(), "metadata": {"name": f"job-{number}"}} for number in range(len(ended))]

        def time_goes_on(path: str) -> None:
            number = path.rsplit("-", 1)[-1]
            if path in api.objects and number.isdecimal():
                api.objects[path]["status"] = ended[int(number)]()["status"]

        api.changes = time_goes_on
        result = run("submit", "-", "--watch", stdin=yaml.safe_dump_all(jobs))
        assert result.exit_code == exit_code, result.output
        assert all(f"job-{number}  " in result.stdout for number in range(len(ended)))
        assert result.stderr.count("error: job-") == sum(one is not ready_job for one in ended)


@pytest.mark.usefixtures("api")
def test_ctrl_c_ends_a_watch_and_says_that_the_job_goes_on(api: ApiServer, tmp_path: Path) -> None:
    api.add("finetunejobs", make_job("triage"))
    # As at a prompt: a shell's background jobs, of which these tests may be one, inherit that Ctrl-C is ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "finetune_cli", "watch", "triage"]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("triage  Training")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "triage goes on by itself; `kubectl finetune watch triage` looks again\n"


def event(kind: str, name: str, reason: str, when: str = "2026-01-01T11:00:00Z", **more: object) -> Object:
    subject = {"kind": kind, "name": name}
    return {
        "metadata": {"name": f"{name}.{reason}", "namespace": "team"},
        "involvedObject": subject,
        "reason": reason,
        "message": f"{reason} it is",
        "lastTimestamp": when,
        **more,
    }


class TestEvents:
    FOUND = (
        event("Pod", "triage-abcdef-1-x7k2p", "Pulled", "2026-01-01T11:00:03Z"),
        event("Job", "triage-abcdef-1", "SuccessfulCreate", "2026-01-01T11:00:02Z"),
        event("FineTuneJob", "triage", "RunStarted", "2026-01-01T11:00:01Z", type="Normal"),
        event("Job", "triage-stage-abcdef-1", "Completed", "2026-01-01T11:00:00Z"),
        event("FineTuneJob", "triage-2", "RunStarted"),
        event("Job", "triage-2-abcdef-1", "SuccessfulCreate"),
        event("Dataset", "triage", "Ready"),
    )

    def test_of_the_job_its_jobs_and_its_pods_and_of_nobody_else(self) -> None:
        found = about(list(self.FOUND), "FineTuneJob", "triage")
        assert [one["reason"] for one in found] == ["Completed", "RunStarted", "SuccessfulCreate", "Pulled"]

    def test_of_a_deployment_and_what_has_its_name(self) -> None:
        found = [event("Deployment", "support", "Scaled"), event("Pod", "support-5d8f7c9b4-abcde", "Unhealthy")]
        assert len(about([*found, *self.FOUND], "ModelDeployment", "support")) == 2

    def test_table(self, api: ApiServer) -> None:
        api.add("finetunejobs", make_job("triage"))
        for one in self.FOUND:
            api.objects[f"/api/v1/namespaces/team/events/{one['metadata']['name']}"] = one
        result = run("events", "triage")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert lines[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
        assert len(lines) == 5
        assert "finetunejob/triage" in lines[2]

    @pytest.mark.usefixtures("api")
    def test_of_nobody(self) -> None:
        assert "no FineTuneJob 'triage' in namespace team" in run("events", "triage").stderr


class TestCancel:
    def test_deletes_the_job(self, api: ApiServer) -> None:
        api.add("finetunejobs", make_job("triage"))
        result = run("cancel", "triage", "--yes")
        assert (result.exit_code, api.objects) == (0, {})
        assert result.stdout == "triage deleted: its pods stop, and what it has stored stays\n"

    def test_nobody_can_be_asked_in_a_script(self, api: ApiServer) -> None:
        api.add("finetunejobs", make_job("triage"))
        result = run("cancel", "triage")
        assert (result.exit_code, len(api.objects)) == (2, 1)
        assert "give --yes" in result.stderr

    def test_of_a_job_that_git_owns_it_is_told(self, api: ApiServer) -> None:
        job = make_job("triage")
        job["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "x"}
        api.add("finetunejobs", job)
        assert "Argo CD writes this job and may undo this; remove the job at its source, too" in (
            run("cancel", "triage", "-y").stderr
        )


class TestFormats:
    def test_status_is_the_object_as_it_is(self, api: ApiServer) -> None:
        api.add("finetunejobs", ready_job())
        stored = api.objects[f"{JOBS}/namer"]
        assert json.loads(run("status", "namer", "-o", "json").stdout) == stored
        assert yaml.safe_load(run("status", "namer", "-o", "yaml").stdout) == stored
        assert json.loads(run("status", "-o", "json").stdout) == {"apiVersion": "v1", "kind": "List", "items": [stored]}

    def test_compared_jobs_are_the_objects_as_they_are(self, api: ApiServer) -> None:
        api.add("finetunejobs", ready_job())
        stored = api.objects[f"{JOBS}/namer"]
        assert json.loads(run("compare", "namer", "namer", "-o", "json").stdout)["items"] == [stored, stored]

    @pytest.mark.usefixtures("api")
    def test_no_jobs_are_an_empty_list(self) -> None:
        assert json.loads(run("status", "-o", "json").stdout)["items"] == []

    def test_wide_tells_more(self, api: ApiServer) -> None:
        queue = {"name": "gpus", "attempt": 1, "position": 2, "waiting": 5}
        api.add("finetunejobs", make_job(queue=queue, cost={"gpuHours": 2, "lostGpuHours": 0}))
        head, line = run("status", "-o", "wide").stdout.splitlines()
        assert head.split()[-6:] == ["METHOD", "DATASET", "QUEUE", "GATE", "COST", "ARTIFACT"]
        assert "2nd of 5 in gpus" in line
        assert "2.00 GPU-hours" in line

    @pytest.mark.usefixtures("api")
    def test_a_format_that_is_none(self) -> None:
        assert run("status", "-o", "xml").exit_code == 2


COMMANDS = {
    "status": ["status"],
    "status of one": ["status", "triage"],
    "watch": ["watch", "triage"],
    "submit": ["submit", DEMO],
    "events": ["events", "triage"],
    "cancel": ["cancel", "triage", "-y"],
    "cost": ["cost"],
    "cost of all": ["cost", "-A"],
    "suspend": ["suspend", "triage"],
    "rerun": ["rerun", "triage"],
    "report": ["report", "job", "triage"],
    "compare": ["compare", "a", "b"],
    "logs": ["logs", "triage"],
    "chat": ["chat", "support", "--message", "hi"],
}

REFUSALS = {
    "no CRDs": ((404, None), "this cluster has no", "install the finetune-operator chart"),
    "no rights": ((403, "forbidden"), "you may not", "ask whoever runs the cluster"),
    "not logged in": ((401, "Unauthorized"), "does not accept your credentials", "log in again"),
    "a server in trouble": ((503, "etcd is away"), "etcd is away", "try again"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_one_line_with_the_next_step(api: ApiServer, command: str, refusal: str) -> None:
    api.refusal, what, step = REFUSALS[refusal]
    result = run(*COMMANDS[command])
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert what in line
    assert step in line


BROKEN = {
    "missing": None,
    "no YAML": "a: [",
    "a list": "- 1\n",
    "empty": "",
    "a cluster that is not there": "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: "
    "{cluster: gone, user: u}}]\nusers: [{name: u, user: {}}]\nclusters: []\n",
}

NOBODY = "nobody listens"


@pytest.mark.parametrize(
    ("command", "state"), [*((command, NOBODY) for command in COMMANDS), *(("submit", state) for state in BROKEN)]
)
def test_without_a_cluster_there_is_one_line_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, state: str
) -> None:
    file = tmp_path / "config"
    monkeypatch.setattr(watch, "OUTAGE_SECONDS", 0)
    monkeypatch.setattr(KUBECONFIG, str(file))
    if state == NOBODY:
        kubeconfig(file, "https://127.0.0.1:1")
    elif (text := BROKEN[state]) is not None:
        file.write_text(text)
    result = run(*COMMANDS[command])
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("error: the cluster does not answer" if state == NOBODY else "error: no cluster: ")
    assert "kubectl cluster-info" in line or "set KUBECONFIG" in line
