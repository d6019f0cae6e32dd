"""Why the API server could not be asked, or said no: one line that names the next step."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from kubernetes import client

from finetune_cli.errors import CliError, NotFoundError, NotStartedError, UnreachableError
from finetune_cli.facts import Object, part
from finetune_cli.kinds import BATCHES, GROUP, JOBS, KINDS

INSTALL = "install the finetune-operator chart (`helm install`), or choose another cluster with --context"

FORWARD = "`kubectl get modeldeployments` tells if it is ready, and `kubectl port-forward` goes another way"


@contextmanager
def explained(namespace: str, verb: str, resource: str, name: str = "") -> Iterator[None]:
    """Turns what the client raises in this block into a CliError."""
    try:
        yield
    except client.ApiException as error:
        raise _explain(error, namespace, verb, resource, name) from error
    except urllib3.exceptions.HTTPError as error:
        raise unreachable(error) from error


def _explain(error: client.ApiException, namespace: str, verb: str, resource: str, name: str) -> CliError:
    said = _status_of(error)
    match error.status:
        case 0:
            return unreachable(error.reason)
        case _ if theirs := _said_by_a_model_server(error):
            return CliError(f"the model server says: {theirs}")
        case 401:
            return CliError("the cluster does not accept your credentials; log in again, then `kubectl auth whoami`")
        case 403:
            return _forbidden(namespace, verb, resource)
        case 404:
            return _not_there(said, namespace, resource, name)
        case 400 if resource == "pods/log":
            return NotStartedError(f"no log yet: {said}; `--follow` waits for it")
        case 409 if verb == "apply":
            return CliError(f"{said.rstrip('.')}; --force-conflicts takes these fields over")
        case 502 | 503 | 504 if resource == "services/proxy":
            return CliError(f"{name} cannot be reached by way of the API server: {said or error.reason}; {FORWARD}")
        case 400 | 422:
            return CliError(f"the cluster refuses this: {said}")
    return CliError(f"the cluster cannot {verb} {resource} {name}: {said or error.reason}; try again")


def _forbidden(namespace: str, verb: str, resource: str) -> CliError:
    kind = f"{resource}.{GROUP}" if resource in KINDS else resource
    role = "view" if verb in ("get", "list") else "edit"
    where = f"namespace {namespace}" if namespace else "all namespaces"
    flag = f"-n {namespace}" if namespace else "-A"
    return CliError(
        f"you may not {verb} {kind} in {where}; ask whoever runs the cluster for the "
        f"role `{role}` there (`kubectl auth can-i {verb if verb != 'apply' else 'patch'} {kind} {flag}`)"
    )


def _not_there(said: str, namespace: str, resource: str, name: str) -> CliError:
    if not said and resource in KINDS:
        return CliError(f"this cluster has no {resource}.{GROUP}; {INSTALL}")
    if said.startswith("namespaces "):
        return CliError(f"there is no namespace {namespace}; `kubectl create namespace {namespace}` makes it")
    base = resource.split("/", maxsplit=1)[0]
    kind = KINDS.get(resource, base.removesuffix("s"))
    command = "finetune status" if resource in (JOBS, BATCHES) else f"get {base}"
    look = f"`kubectl {command} -n {namespace}` lists those that are there"
    return NotFoundError(f"no {kind} {name!r} in namespace {namespace}; {look}")


def _status_of(error: client.ApiException) -> str:
    """The message of the Kubernetes Status in the answer; empty when the answer is none."""
    return one_line(_body(error).get("message") or "")


def _said_by_a_model_server(error: client.ApiException) -> str:
    """The message of an error in OpenAI's form; empty when the answer is none."""
    return one_line(part(_body(error), "error").get("message") or "")


def _body(error: client.ApiException) -> Object:
    try:
        found = json.loads(error.body or "")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def unreachable(cause: object) -> UnreachableError:
    """Nobody answers, and how to look into it."""
    return UnreachableError(
        f"the cluster does not answer ({one_line(cause)}); "
        "check `kubectl cluster-info`, or choose another with --context"
    )


def one_line(words: object) -> str:
    """Without line breaks."""
    return " ".join(str(words).split())
