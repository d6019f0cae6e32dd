"""What a shell, and kubectl for its plugin, offers after <Tab>, asked of a server on loopback."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_cli import kubectl_completion
from tests.unit.cli.apiserver import ApiServer, kubeconfig
from tests.unit.cli.jobs import make_job, ready_job

Offered = Callable[..., list[str]]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Offered:
    """As kubectl calls `kubectl_complete-finetune`: the words so far, the last one unfinished."""

    def ask(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-finetune", *words])
        kubectl_completion.main()
        said = capsys.readouterr()
        assert said.err == ""
        return said.out.splitlines()

    return ask


def names(lines: list[str]) -> list[str]:
    return [line.split("\t")[0] for line in lines]


def test_commands_with_what_they_do(offered: Offered) -> None:
    lines = offered("")
    assert {"status", "submit", "chat"} <= set(names(lines))
    assert "validate\tCheck YAML files without a cluster" in next(line for line in lines if line.startswith("validate"))
    assert lines[-1] == ":4"
    assert names(offered("re")) == ["report", "resume", "rerun", ":4"]


@pytest.mark.usefixtures("api")
class TestNames:
    @pytest.fixture(autouse=True)
    def _jobs(self, api: ApiServer) -> None:
        api.add("finetunejobs", make_job("triage"), ready_job())
        api.add("batchinferences", {"metadata": {"name": "labels", "namespace": "team"}})
        api.add("datasets", {"metadata": {"name": "tickets", "namespace": "team"}})
        api.add("modeldeployments", {"metadata": {"name": "support", "namespace": "team"}})

    def test_of_jobs_with_their_phases(self, offered: Offered) -> None:
        assert offered("status", "") == ["namer\tSucceeded", "triage\tTraining", ":4"]
        assert offered("watch", "tr") == ["triage\tTraining", ":4"]

    def test_a_job_that_is_named_already_is_not_offered_again(self, offered: Offered) -> None:
        assert names(offered("compare", "namer", "")) == ["triage", ":4"]

    def test_of_what_the_command_takes(self, offered: Offered) -> None:
        assert names(offered("report", "dataset", "")) == ["tickets", ":4"]
        assert names(offered("report", "job", "n")) == ["namer", ":4"]
        assert names(offered("watch", "--kind", "batch", "")) == ["labels", ":4"]
        assert names(offered("events", "--kind", "dataset", "")) == ["tickets", ":4"]
        assert names(offered("chat", "")) == ["support", ":4"]

    def test_of_another_namespace(self, offered: Offered) -> None:
        assert offered("status", "-n", "empty", "") == [":4"]

    def test_of_contexts(self, offered: Offered) -> None:
        assert offered("status", "--context", "") == ["here\tc", ":4"]


def test_formats(offered: Offered) -> None:
    assert names(offered("status", "-o", "")) == ["table", "wide", "json", "yaml", ":4"]


def test_files_are_the_shells_to_offer(offered: Offered) -> None:
    assert offered("validate", "") == [":0"]
    assert offered("submit", "a.y") == [":0"]


@pytest.mark.parametrize("state", ["no kubeconfig", "broken", "nobody listens", "refused"])
def test_trouble_completes_to_nothing(tmp_path: Path, state: str, api: ApiServer, offered: Offered) -> None:
    file = tmp_path / "kubeconfig"
    match state:
        case "no kubeconfig":
            file.unlink()
        case "broken":
            file.write_text("a: [")
        case "nobody listens":
            kubeconfig(file, "https://127.0.0.1:1")
        case "refused":
            api.refusal = (403, "forbidden")
    assert offered("status", "") == [":4"]


def test_the_program_is_installed_beside_the_plugin() -> None:
    program = Path(sys.executable).parent / "kubectl_complete-finetune"
    done = subprocess.run([program, "va"], capture_output=True, text=True, check=True)
    assert names(done.stdout.splitlines()) == ["validate", ":4"]


def test_what_needs_no_cluster_does_not_load_its_client() -> None:
    """It takes longer to load than all else together."""
    code = "import sys, finetune_cli.__main__; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
