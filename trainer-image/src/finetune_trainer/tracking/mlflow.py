"""MLflow, by five calls of its REST API 2.0 (https://mlflow.org/docs/latest/api_reference/rest-api.html).

Not by its client: mlflow-skinny installs 40 packages (69 MB; cloud SDKs and telemetry of its own among them) for them.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import httpx

from finetune_contract.tracking import MlflowPlan, TrackedRun
from finetune_contract.tracking import Tracker as Kind
from finetune_trainer.tracking.tracker import Refused
from finetune_trainer.tracking.words import Opening, Outcome, Point

TOKEN, USER, PASSWORD = "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""MLflow's own environment variables."""

_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_METRICS_A_CALL = 1000
_PARAMETERS_A_CALL = 100
"""The server's limits of one log-batch call."""

_LONGEST_VALUE = 500
"""Characters of a parameter that every server since 1.28 takes."""

_TRANSIENT = (408, 425, 429)
_STATUS = {Outcome.FINISHED: "FINISHED", Outcome.FAILED: "FAILED", Outcome.STOPPED: "KILLED"}
_KEY_TAG, _JOB_TAG = "finetune.runKey", "finetune.job"


class Mlflow:
    """One run on an MLflow server, found again by its key."""

    kind = Kind.MLFLOW

    def __init__(self, plan: MlflowPlan, opening: Opening, environment: Mapping[str, str] = os.environ) -> None:
        """Take where, and what about; nothing is sent yet."""
        self._plan, self._opening = plan, opening
        token, user = environment.get(TOKEN), environment.get(USER)
        self._client = httpx.Client(
            base_url=f"{plan.uri.rstrip('/')}/api/2.0/mlflow/",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(user, environment.get(PASSWORD, "")) if user and not token else None,
            timeout=_TIMEOUT,
        )
        self._run = ""

    def open(self) -> TrackedRun:
        """The run of this key: the one of an earlier attempt, else a new one with its parameters."""
        experiment = self._experiment()
        found = self._call("POST", "runs/search", {
            "experiment_ids": [experiment],
            "filter": f"tags.`{_KEY_TAG}` = '{self._opening.run_key}' and tags.`{_JOB_TAG}` = '{self._opening.job}'",
            "order_by": ["attributes.start_time ASC"],
            "max_results": 1,
        }).get("runs")  # fmt: skip
        if found:
            self._run = found[0]["info"]["run_id"]
            self._call("POST", "runs/update", {"run_id": self._run, "status": "RUNNING"})
        else:
            self._run = self._create(experiment)
        # Once written they cannot change, and writing the same again is allowed: a first attempt may have died halfway.
        items = iter(self._opening.parameters.items())
        while some := list(islice(items, _PARAMETERS_A_CALL)):
            parameters = [{"key": name, "value": str(value)[:_LONGEST_VALUE]} for name, value in some]
            self._call("POST", "runs/log-batch", {"run_id": self._run, "params": parameters})
        url = f"{self._plan.uri.rstrip('/')}/#/experiments/{experiment}/runs/{self._run}"
        return TrackedRun(tracker=self.kind, run=self._run, url=url if len(url) <= 512 else None)

    def log(self, points: Sequence[Point]) -> None:
        """Send some points."""
        metrics = _metrics(points)
        while some := list(islice(metrics, _METRICS_A_CALL)):
            self._call("POST", "runs/log-batch", {"run_id": self._run, "metrics": some})

    def finish(self, outcome: Outcome) -> None:
        """Say how it has ended."""
        self._call("POST", "runs/update", {"run_id": self._run, "status": _STATUS[outcome], "end_time": _now()})

    def _experiment(self) -> str:
        name = self._plan.experiment
        if found := self._by_name(name):
            return found
        try:
            return str(self._call("POST", "experiments/create", {"name": name})["experiment_id"])
        except Refused:
            # Another run's pod may have been faster.
            if found := self._by_name(name):
                return found
            raise

    def _by_name(self, name: str) -> str | None:
        answer = self._request("GET", "experiments/get-by-name", params={"experiment_name": name})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        experiment = _checked(answer)["experiment"]
        if experiment.get("lifecycle_stage") == "deleted":
            raise Refused(f"the experiment {name!r} was deleted: restore it, or name another one")
        return str(experiment["experiment_id"])

    def _create(self, experiment: str) -> str:
        tags = {_KEY_TAG: self._opening.run_key, _JOB_TAG: self._opening.job}
        answer = self._call("POST", "runs/create", {
            "experiment_id": experiment,
            "run_name": self._opening.job,
            "start_time": _now(),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        })  # fmt: skip
        return str(answer["run"]["info"]["run_id"])

    def _call(self, verb: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _checked(self._request(verb, path, json=body))

    def _request(self, verb: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
        return self._client.request(verb, path, **more)


def _checked(answer: httpx.Response) -> dict[str, Any]:
    status = answer.status_code
    if answer.is_success:
        document: dict[str, Any] = answer.json()
        return document
    message = f"{answer.request.url.path} answered {status}: {answer.text[:160]}"
    if status in _TRANSIENT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise httpx.HTTPError(message)
    raise Refused(message)


def _metrics(points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    for point in points:
        for name, value in point.metrics.items():
            yield {"key": name, "value": value, "timestamp": round(point.at * 1000), "step": point.step}


def _now() -> int:
    return round(time.time() * 1000)
