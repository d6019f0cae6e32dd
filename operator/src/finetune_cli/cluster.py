"""Kubernetes' Jobs, pods and logs, as the API server has them; `objects` reads and writes our own kinds."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from kubernetes import client, config
from yaml import YAMLError

from finetune_cli.errors import CliError, NotStartedError
from finetune_cli.explanations import explained, one_line
from finetune_cli.facts import Object, part
from finetune_cli.kinds import GROUP, RunKind
from finetune_cli.objects import REQUEST_SECONDS, Objects

POD_INDEX = "batch.kubernetes.io/job-completion-index"
"""Label of the pods of a job with several nodes; 0 knows how far all are."""

ROLES = {RunKind.JOB: "train", RunKind.BATCH: "batch"}
"""Labels of the pods that do the work."""

MISSHAPEN = (TypeError, KeyError, AttributeError, ValueError)
"""What the client raises on a kubeconfig that is YAML, but none."""


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self.objects = Objects(api, namespace)
        self._api = api
        # Any: this method has no types.
        self._plain: Any = api.sanitize_for_serialization  # type: ignore[no-untyped-call,unused-ignore]

    # Made when they are needed: most commands ask for our own kinds only, and importing these takes a second.
    # Any: the generated signatures promise models where these calls return dictionaries and a raw response.

    @cached_property
    def _core(self) -> Any:  # noqa: ANN401
        return client.CoreV1Api(self._api)

    @cached_property
    def _batch(self) -> Any:  # noqa: ANN401
        return client.BatchV1Api(self._api)

    def jobs_of_operator(self) -> list[Object]:
        """The Jobs that the operator made in this namespace, the oldest first."""
        with self._explained("list", "jobs.batch"):
            found = self._batch.list_namespaced_job(
                self.namespace,
                label_selector="app.kubernetes.io/managed-by=finetune-operator",
                _request_timeout=REQUEST_SECONDS,
            ).items
        found.sort(key=lambda job: (job.metadata.creation_timestamp, job.metadata.name))
        return [self._plain(job) for job in found]

    def create_pod(self, manifest: Object) -> str:
        """Create a pod; its name."""
        with self._explained("create", "pods", manifest["metadata"].get("generateName", "")):
            pod = self._core.create_namespaced_pod(self.namespace, manifest, _request_timeout=REQUEST_SECONDS)
        return str(pod.metadata.name)

    def pod(self, name: str) -> Object:
        """A pod."""
        with self._explained("get", "pods", name):
            pod = self._core.read_namespaced_pod(name, self.namespace, _request_timeout=REQUEST_SECONDS)
        answer: Object = self._plain(pod)
        return answer

    def delete_pod(self, name: str) -> None:
        """Delete a pod."""
        with self._explained("delete", "pods", name):
            self._core.delete_namespaced_pod(
                name, self.namespace, grace_period_seconds=0, _request_timeout=REQUEST_SECONDS
            )

    def working_pod(self, kind: RunKind, name: str, attempt: int | None = None) -> str:
        """Name of the newest pod that trains or answers, or of an attempt's newest; of several nodes, of the first."""
        role = ROLES[kind]
        selector = f"{GROUP}/name={name},{GROUP}/role={role}" + (f",{GROUP}/attempt={attempt}" if attempt else "")
        with self._explained("list", "pods"):
            pods = self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=REQUEST_SECONDS
            ).items
        pods = [pod for pod in pods if (pod.metadata.labels or {}).get(POD_INDEX, "0") == "0"]
        if not pods:
            which = f"attempt {attempt} of {name}" if attempt else name
            more = f"kubectl finetune status {name}" + (f" --kind {kind}" if kind is not RunKind.JOB else "")
            raise NotStartedError(f"{which} has no {role} pod now; `{more}` tells what happened")
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

    def _pieces(self, pod: str, response: Any) -> Iterator[bytes]:  # noqa: ANN401 - urllib3's, version 1 or 2
        with self._explained("get", "pods/log", pod):
            # By chunk as the kubelet sends them: a line is seen when it is written.
            yield from response.stream()

    def _explained(self, verb: str, resource: str, name: str = "") -> AbstractContextManager[None]:
        return explained(self.namespace, verb, resource, name)


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
            f"no cluster: {which} cannot be used ({one_line(error)}); set KUBECONFIG, or choose one of "
            "`kubectl config get-contexts` with --context"
        ) from error
    chosen = next((one for one in contexts if one["name"] == context), active)
    return Cluster(client.ApiClient(settings), namespace or part(chosen, "context").get("namespace") or "default")
