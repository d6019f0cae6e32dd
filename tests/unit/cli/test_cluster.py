"""What the API server and the kubeconfig can answer, and the line that a user reads instead."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from kubernetes import client

from finetune_cli import watch
from finetune_cli.cluster import Cluster, connect
from finetune_cli.errors import CliError, NotStartedError, UnreachableError
from tests.unit.cli.jobs import failed_job, make_job


def refused(status: int, message: str | None = None) -> client.ApiException:
    error = client.ApiException(status=status, reason="Reason")
    error.body = json.dumps({"kind": "Status", "message": message}) if message else "404 page not found\n"
    return error


def cluster(error: Exception) -> Cluster:
    """Every call fails with the error."""

    class Failing:
        def __getattr__(self, _name: str) -> Callable[..., Any]:
            def call(*_arguments: object, **_options: object) -> None:
                raise error

            return call

    made = Cluster(client.ApiClient(), "team")
    made._core = made.objects._api = Failing()
    return made


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (refused(404), CliError, "this cluster has no finetunejobs.finetune.dev; install the finetune-operator chart"),
        (
            refused(404, "finetunejobs 'namer' not found"),
            CliError,
            "no FineTuneJob 'namer' in namespace team; `kubectl",
        ),
        (refused(401, "Unauthorized"), CliError, "log in again"),
        (refused(403, "forbidden"), CliError, "you may not get finetunejobs.finetune.dev in namespace team; ask"),
        (refused(500, "etcd\nis away"), CliError, "cannot get finetunejobs namer: etcd is away; try again"),
        (client.ApiException(status=0, reason="SSLError"), UnreachableError, "does not answer (SSLError); check"),
        (urllib3.exceptions.ProtocolError("broken"), UnreachableError, "does not answer (broken); check"),
    ],
    ids=["no CRDs", "no such job", "unknown user", "forbidden", "server error", "TLS", "connection"],
)
def test_a_refusal_names_the_next_step(error: Exception, kind: type[CliError], words: str) -> None:
    with pytest.raises(kind) as raised:
        cluster(error).objects.get("finetunejobs", "namer")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_log_of_a_container_that_waits() -> None:
    with pytest.raises(NotStartedError, match="no log yet: trainer is waiting to start; `--follow` waits for it"):
        cluster(refused(400, "trainer is waiting to start")).log("namer-1")


def kubeconfig(folder: Path, **context: str) -> Path:
    named = {"name": "here", "context": {"cluster": "c", "user": "u", **context}}
    other = {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "away"}}
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [named, other],
        "current-context": "here",
    }
    path.write_text(yaml.safe_dump(document))
    return path


class TestConnect:
    @pytest.fixture(autouse=True)
    def _kubeconfig(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = kubeconfig(tmp_path, namespace="mine")
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))

    @pytest.mark.parametrize(
        ("context", "namespace", "expected"),
        [(None, None, "mine"), ("there", None, "away"), ("there", "given", "given")],
        ids=["the current context's", "a context's", "the option's"],
    )
    def test_namespace(self, context: str | None, namespace: str | None, expected: str) -> None:
        assert connect(context, namespace).namespace == expected

    def test_unknown_context(self) -> None:
        with pytest.raises(CliError, match=r"context 'nowhere' cannot be used .* `kubectl config get-contexts`"):
            connect("nowhere")

    def test_nobody_listens(self) -> None:
        with pytest.raises(UnreachableError, match=r"refused.*; check `kubectl cluster-info`"):
            connect().objects.all_of("finetunejobs")


@pytest.mark.parametrize("text", [None, "a: [", "- 1\n", ""], ids=["missing", "not YAML", "a list", "empty"])
def test_unusable_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(CliError, match=r"no cluster: the kubeconfig cannot be used .* set KUBECONFIG"):
        connect()


class TestOnceStarted:
    def test_asks_until_there_is_an_answer(self) -> None:
        answers: Iterator[NotStartedError | str] = iter([NotStartedError(), NotStartedError(), "log"])

        def act() -> str:
            answer = next(answers)
            if isinstance(answer, NotStartedError):
                raise answer
            return answer

        naps: list[float] = []
        assert watch.once_started(act, make_job, naps.append) == "log"
        assert len(naps) == 2

    def test_a_job_that_has_ended_never_will(self) -> None:
        with pytest.raises(NotStartedError):
            watch.once_started(self.fail, failed_job, lambda _: None)

    def fail(self) -> str:
        raise NotStartedError
