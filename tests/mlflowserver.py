"""A real MLflow tracking server for tests, in an environment of its own: nobody else needs its many dependencies."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tools.paths import cache
from tools.ports import free_port
from tools.toolchain import new_virtual_environment

VERSION = "3.17.2"
_DEADLINE_SECONDS = 120.0


class MlflowServer:
    """A server that can be stopped, and started again on the same port with the same data."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self._directory = directory
        self._port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        environment = cache() / "python" / f"mlflow-{VERSION}"
        new_virtual_environment(environment, f"mlflow=={VERSION}")
        command = [
            str(environment / "bin" / "mlflow"), "server", "--host=127.0.0.1", f"--port={self._port}", "--workers=1",
            f"--backend-store-uri=sqlite:///{self._directory / 'mlflow.db'}",
            f"--artifacts-destination={self._directory / 'artifacts'}",
        ]  # fmt: skip
        variables = {
            "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
            "HOME": str(self._directory),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=variables, cwd=self._directory, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _DEADLINE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "server.log").read_text()[-2000:]
            assert time.monotonic() < end, "mlflow never answered"
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop; what it has is kept."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.uri}/health", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def call(self, path: str, body: dict[str, Any]) -> Any:
        """A POST of the REST API."""
        answer = httpx.post(f"{self.uri}/api/2.0/mlflow/{path}", json=body, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()

    def experiment(self, name: str) -> str:
        """The id of an experiment."""
        answer = httpx.get(
            f"{self.uri}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": name}, timeout=30
        )
        assert answer.is_success, answer.text
        return str(answer.json()["experiment"]["experiment_id"])

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """All runs of an experiment."""
        body = {"experiment_ids": [self.experiment(experiment)], "max_results": 100}
        return list(self.call("runs/search", body).get("runs", []))

    def history(self, run: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric, each step once."""
        answer = httpx.get(
            f"{self.uri}/api/2.0/mlflow/metrics/get-history",
            params={"run_id": run, "metric_key": metric, "max_results": 10_000},
            timeout=30,
        )
        assert answer.is_success, answer.text
        return sorted({(int(each["step"]), each["value"]) for each in answer.json().get("metrics", [])})


@contextmanager
def mlflow_server(directory: Path) -> Iterator[MlflowServer]:
    """A server until the end of the block."""
    server = MlflowServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()
