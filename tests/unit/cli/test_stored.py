"""The pod that prints a report: like the one that wrote it, with less rights, never taken for the operator's."""

from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner

from finetune_cli import __main__ as cli
from finetune_cli import stored
from finetune_cli.errors import CliError
from finetune_contract.manifest import StoredKind
from finetune_operator.api.dataset import Dataset
from finetune_operator.manifests import dataset as manifests
from finetune_operator.settings import Settings
from finetune_store.__main__ import main as store_command
from finetune_store.store import Store
from tests.factories import make_dataset

WHERE = {"digest": "sha256:" + "c" * 64, "uri": "pvc://finetune-artifacts/reports/" + "c" * 64}
RESOURCE = make_dataset(
    status={"revision": {"report": WHERE}}, podTemplate={"imagePullSecrets": [{"name": "registry"}]}
)


def prepare_job() -> dict[str, Any]:
    dataset = Dataset.model_validate(make_dataset(podTemplate={"imagePullSecrets": [{"name": "registry"}]}))
    return manifests.build(dataset, "k" * 32, 1, Settings())[1]


def published(root: Path) -> dict[str, str]:
    store = Store(root, "finetune-artifacts")
    with store.workspace(StoredKind.REPORT) as work:
        (work / "report.html").write_text("<h1>gr\u00fc\u00dfe</h1>\n" * 500)
        ref = store.publish(StoredKind.REPORT, work, {})
    return {"uri": ref.uri, "digest": ref.digest}


def plan_at(root: Path) -> str:
    (root / "plan.json").write_text('{"claim": "finetune-artifacts", "name": "tickets"}')
    return str(root / "plan.json")


def shown(root: Path, where: dict[str, str], file: str, capfd: pytest.CaptureFixture[str]) -> str:
    store_command(
        ["show", f"--store={root}", f"--uri={where['uri']}", f"--digest={where['digest']}", f"--file={file}",
         f"--termination-log={root}/log", f"--plan={plan_at(root)}"]
    )  # fmt: skip
    return capfd.readouterr().out


def test_what_the_pod_prints_is_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = "a line before\n" + shown(tmp_path, published(tmp_path), "report.html", capfd) + "and one after\n"
    assert stored.unpacked(log).decode() == "<h1>gr\u00fc\u00dfe</h1>\n" * 500


@pytest.mark.parametrize("file", ["other.html", "../../etc/passwd", "/etc/passwd"])
def test_a_file_that_is_not_there_is_named_with_those_that_are(
    file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CliError, match=r"there is no .*; there are manifest.json, report.html"):
        stored.unpacked(shown(tmp_path, published(tmp_path), file, capfd))


def test_a_broken_log_is_no_file() -> None:
    with pytest.raises(CliError, match="came broken"):
        stored.unpacked("-----BEGIN STORED FILE-----\nabc\n-----END STORED FILE-----")
    with pytest.raises(CliError, match="it left no word"):
        stored.unpacked("")


def test_the_pod_is_like_the_one_that_wrote_it() -> None:
    pod = stored.reader(RESOURCE, prepare_job(), WHERE, "report.html")
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert pod["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "kubectl-finetune"}
    assert pod["metadata"]["ownerReferences"][0]["name"] == "tickets"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert [volume["name"] for volume in spec["volumes"]] == ["scratch", "plan", "store"]
    assert {"name": "store", "mountPath": "/store", "readOnly": True} in container["volumeMounts"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["command"][3:] == [
        "show",
        f"--uri={WHERE['uri']}",
        f"--digest={WHERE['digest']}",
        "--file=report.html",
    ]
    assert spec["activeDeadlineSeconds"] == 300


class FakeCluster:
    """Runs the pod's command here."""

    namespace = "team-a"

    def __init__(self, resource: dict[str, Any], jobs: list[dict[str, Any]], log: str) -> None:
        self.resource, self.jobs, self.text = resource, jobs, log
        self.pods: list[str] = []
        self.created: list[dict[str, Any]] = []

    @property
    def objects(self) -> Self:
        return self

    def get(self, _plural: str, _name: str) -> dict[str, Any]:
        return self.resource

    def jobs_of_operator(self) -> list[dict[str, Any]]:
        return self.jobs

    def create_pod(self, manifest: dict[str, Any]) -> str:
        self.created.append(manifest)
        self.pods.append(manifest["metadata"]["generateName"] + "x")
        return self.pods[-1]

    def pod(self, _name: str) -> dict[str, Any]:
        return {"status": {"phase": "Succeeded"}}

    def log(self, _name: str) -> list[bytes]:
        return [self.text.encode()]

    def delete_pod(self, name: str) -> None:
        self.pods.remove(name)


def test_the_command_saves_the_report_and_leaves_no_pod(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster(RESOURCE, [prepare_job()], shown(tmp_path, published(tmp_path), "report.html", capfd))
    monkeypatch.setattr(cli, "connect", lambda *_: cluster)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["report", "dataset", "tickets"])
    assert (result.exit_code, result.output) == (0, "saved as tickets-report.html\n")
    assert (tmp_path / "tickets-report.html").read_text().startswith("<h1>")
    assert cluster.pods == []
    cluster.text = "StorageUnavailable: /store/reports/c: is not there\n"
    result = CliRunner().invoke(cli.app, ["report", "dataset", "tickets"])
    assert result.exit_code == 1
    assert (
        "error: the stored file could not be read: StorageUnavailable: /store/reports/c: is not there" in result.output
    )
    assert cluster.pods == []


@pytest.mark.parametrize(
    ("resource", "jobs", "said"),
    [
        (make_dataset(), [prepare_job()], "Dataset 'tickets' has no report yet: it has no revision with a report"),
        (RESOURCE, [], "no Job of the operator is left in this namespace"),
    ],
    ids=["no report", "no Job"],
)
def test_what_keeps_a_report_away_is_said(
    resource: dict[str, Any], jobs: list[dict[str, Any]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "connect", lambda *_: FakeCluster(resource, jobs, ""))
    result = CliRunner().invoke(cli.app, ["report", "dataset", "tickets"])
    assert result.exit_code == 1
    assert said in result.output


def test_the_pod_is_like_the_newest_of_its_own_with_the_newest_image(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [prepare_job() for _ in range(4)]
    images, names = ("old", "old", "new", "without-the-store"), ("tickets", "tickets", "other", "other")
    for job, image, name in zip(jobs, images, names, strict=True):
        job["metadata"]["labels"]["finetune.dev/name"] = name
        pod = job["spec"]["template"]["spec"]
        pod["containers"][0]["image"] = f"registry/trainer:{image}"
        pod["nodeSelector"] = {"of": name}
    jobs[-1]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = []
    cluster = FakeCluster(RESOURCE, jobs, shown(tmp_path, published(tmp_path), "report.html", capfd))
    stored.fetch(cluster, RESOURCE, "report.html")  # type: ignore[arg-type]
    spec = cluster.created[-1]["spec"]
    assert spec["nodeSelector"] == {"of": "tickets"}
    assert spec["containers"][0]["image"] == "registry/trainer:new"
    assert jobs[1]["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/trainer:old"
