"""The only module that talks to the API server: reads jobs and logs, and says in one line why it cannot."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config
from yaml import YAMLError

from finetune_cli.errors import CliError, NotStartedError, UnreachableError
from finetune_cli.facts import Object, part

GROUP, VERSION = "finetune.dev", "v1alpha1"
JOBS = "finetunejobs"
POD_INDEX = "batch.kubernetes.io/job-completion-index"
"""Label of the pods of a job with several nodes; 0 knows how far all are."""

REQUEST_SECONDS = (5, 30)
"""Limits for connecting and for an answer."""

MISSHAPEN = (TypeError, KeyError, AttributeError, ValueError)
"""What the client raises on a kubeconfig that is YAML, but none."""

INSTALL = "install the finetune-operator chart (`helm install`), or choose another cluster with --context"


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        # Any: the generated signatures promise models where these calls return dictionaries and a raw response.
        self._objects: Any = client.CustomObjectsApi(api)
        self._core: Any = client.CoreV1Api(api)

    def jobs(self) -> list[Object]:
        """Every FineTuneJob of the namespace."""
        with self._explained("list", JOBS):
            answer = self._objects.list_namespaced_custom_object(
                GROUP, VERSION, self.namespace, JOBS, _request_timeout=REQUEST_SECONDS
            )
        return list(answer["items"])

    def job(self, name: str) -> Object:
        """The FineTuneJob of that name."""
        with self._explained("get", JOBS, name):
            answer: Object = self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, JOBS, name, _request_timeout=REQUEST_SECONDS
            )
        return answer

    def patch(self, name: str, spec: dict[str, Any]) -> Object:
        """Change fields of a FineTuneJob's spec."""
        with self._explained("patch", JOBS, name):
            answer: Object = self._objects.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                JOBS,
                name,
                {"spec": spec},
                field_manager="kubectl-finetune",
                _request_timeout=REQUEST_SECONDS,
            )
        return answer

    def training_pod(self, name: str, attempt: int | None = None) -> str:
        """Name of the job's newest training pod, or of the newest one of an attempt; of several nodes, of the first."""
        selector = f"{GROUP}/name={name},{GROUP}/role=train" + (f",{GROUP}/attempt={attempt}" if attempt else "")
        with self._explained("list", "pods"):
            pods = self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=REQUEST_SECONDS
            ).items
        pods = [pod for pod in pods if (pod.metadata.labels or {}).get(POD_INDEX, "0") == "0"]
        if not pods:
            which = f"attempt {attempt} of {name}" if attempt else name
            raise NotStartedError(
                f"{which} has no training pod now; `kubectl finetune status {name}` tells what happened"
            )
        newest = max(pods, key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))
        return str(newest.metadata.name)

    def log(self, pod: str, follow: bool = False) -> Iterator[bytes]:
        """The pod's log in pieces, as it comes; with `follow` until the pod ends.

        Raises:
            NotStartedError: the pod's container waits for its node or image.
        """
        with self._explained("get", "pods/log", pod):
            response = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                follow=follow,
                _preload_content=False,
                _request_timeout=None if follow else REQUEST_SECONDS,
            )
        return self._pieces(pod, response)

    def job_children(self, name: str) -> list[Object]:
        """The Jobs that a FineTuneJob has."""
        with self._explained("list", "jobs"):
            answer = self._objects.list_namespaced_custom_object(
                "batch",
                "v1",
                self.namespace,
                "jobs",
                label_selector=f"{GROUP}/name={name},{GROUP}/kind=FineTuneJob",
                _request_timeout=REQUEST_SECONDS,
            )
        return list(answer["items"])

    def run_pod(self, pod: Object, seconds: float) -> str:
        """Run a pod to its end, delete it, and answer its log.

        Raises:
            CliError: it may not be created, or has not ended in time.
        """
        name = pod["metadata"]["name"]
        with self._explained("create", "pods", name):
            self._core.create_namespaced_pod(self.namespace, pod, _request_timeout=REQUEST_SECONDS)
        try:
            self._wait_for_end(name, seconds)
            return b"".join(self.log(name)).decode(errors="replace")
        finally:
            with self._explained("delete", "pods", name):
                self._core.delete_namespaced_pod(
                    name, self.namespace, grace_period_seconds=0, _request_timeout=REQUEST_SECONDS
                )

    def _wait_for_end(self, name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with self._explained("get", "pods", name):
                pod = self._core.read_namespaced_pod(name, self.namespace, _request_timeout=REQUEST_SECONDS)
            if pod.status.phase in ("Succeeded", "Failed"):
                return
            if time.monotonic() > deadline:
                raise CliError(
                    f"pod {name} has not ended in {seconds:.0f} s (phase {pod.status.phase}); "
                    "is there room for it on the node that holds the volume?"
                )
            time.sleep(0.5)

    def _pieces(self, pod: str, response: Any) -> Iterator[bytes]:  # noqa: ANN401 - urllib3's, version 1 or 2
        with self._explained("get", "pods/log", pod):
            # By chunk as the kubelet sends them: a line is seen when it is written.
            yield from response.stream()

    @contextmanager
    def _explained(self, verb: str, resource: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except client.ApiException as error:
            raise self._explain(error, verb, resource, name) from error
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error

    def _explain(self, error: client.ApiException, verb: str, resource: str, name: str) -> CliError:
        said = _status_of(error)
        match error.status:
            case 0:
                return _unreachable(error.reason)
            case 401:
                return CliError(
                    "the cluster does not accept your credentials; log in again, then `kubectl auth whoami`"
                )
            case 403:
                kind = resource if resource.startswith("pods") else f"{resource}.{GROUP}"
                role = "edit" if verb == "patch" else "view"
                return CliError(
                    f"you may not {verb} {kind} in namespace {self.namespace}; ask whoever runs the cluster for the "
                    f"role `{role}` there (`kubectl auth can-i {verb} {kind} -n {self.namespace}`)"
                )
            case 400 if resource == "pods/log":
                return NotStartedError(f"no log yet: {said}; `--follow` waits for it")
            case 404 if not said:
                return CliError(f"this cluster has no {resource}.{GROUP}; {INSTALL}")
            case 404:
                kind = "FineTuneJob" if resource == JOBS else "pod"
                return CliError(
                    f"no {kind} {name!r} in namespace {self.namespace}; "
                    f"`kubectl finetune status -n {self.namespace}` lists the jobs that are there"
                )
            case 422:
                return CliError(f"the cluster refuses this: {said}")
        return CliError(f"the cluster cannot {verb} {resource} {name}: {said or error.reason}; try again")


def connect(context: str | None = None, namespace: str | None = None) -> Cluster:
    """The cluster of the kubeconfig's context, or of the one named; nothing is asked yet.

    Raises:
        CliError: there is no usable kubeconfig or no such context.
    """
    # Any: this part of the client has no types.
    load_kube_config: Any = config.load_kube_config
    list_contexts: Any = config.list_kube_config_contexts
    settings: Any = client.Configuration()
    try:
        settings.retries = False
        load_kube_config(context=context, client_configuration=settings, persist_config=False)
        contexts, active = list_contexts()
    except (config.ConfigException, YAMLError, OSError, *MISSHAPEN) as error:
        which = f"context {context!r}" if context else "the kubeconfig"
        raise CliError(
            f"no cluster: {which} cannot be used ({_one_line(error)}); set KUBECONFIG, or choose one of "
            "`kubectl config get-contexts` with --context"
        ) from error
    chosen = next((one for one in contexts if one["name"] == context), active)
    return Cluster(client.ApiClient(settings), namespace or part(chosen, "context").get("namespace") or "default")


def _status_of(error: client.ApiException) -> str:
    """The message of the Kubernetes Status in the answer; empty when the answer is none."""
    try:
        return _one_line(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return ""


def _unreachable(cause: object) -> UnreachableError:
    return UnreachableError(
        f"the cluster does not answer ({_one_line(cause)}); "
        "check `kubectl cluster-info`, or choose another with --context"
    )


def _one_line(words: object) -> str:
    return " ".join(str(words).split())
