"""What keeps a pod from running, or a child from being made, is in the conditions within seconds, by its name.

All causes are set up at once, each in a namespace of its own, and one loop notes when each condition first names its
cause. The measured delays are printed (`-s`) and are properties of the test report.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from tests.cluster.conftest import fresh_namespace
from tests.cluster.kube import Kube, Object
from tests.cluster.objects import resource

pytestmark = pytest.mark.cluster

SECONDS = 180
"""For all causes together, beside other tests; the goal for each is 5 after the fact."""

ROWS = {"inline": {"jsonl": "\n".join(f'{{"prompt": "{n}", "completion": "{n + 1}"}}' for n in range(20))}}
HELD = {"finetune.dev/test": "held"}
"""A label that no node has until a test gives it."""


def dataset(**spec: object) -> Object:
    return resource("Dataset", "rows", {"source": ROWS, **spec})


def quota(**hard: str) -> Object:
    hard = {name.replace("__", "/").replace("_", "."): value for name, value in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": hard}}


def claim(name: str, storage_class: str) -> Object:
    spec = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


LIMIT_RANGE: Object = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "small"},
    "spec": {"limits": [{"type": "Pod", "max": {"memory": "1Mi"}}]},
}

GATED = {"huggingFace": {"repo": "org/gated", "tokenSecretRef": {"name": "absent", "key": "token"}}}


# --- when the facts were there


def created(kube: Kube) -> str:
    """The resource itself: what refuses its children was there before."""
    items = kube.find("datasets,finetunejobs,modeldeployments")
    return str(items[0]["metadata"]["creationTimestamp"])


def event(reason: str) -> Callable[[Kube], str]:
    def first(kube: Kube) -> str:
        return min(str(item["firstTimestamp"]) for item in kube.find("events") if item["reason"] == reason)

    return first


def judged_by_the_scheduler(kube: Kube) -> str:
    conditions = [c for pod in kube.find("pods") for c in pod["status"]["conditions"] if c["status"] == "False"]
    return next(str(c["lastTransitionTime"]) for c in conditions if c["type"] == "PodScheduled")


def died(kube: Kube) -> str:
    statuses = [status for pod in kube.find("pods") for status in pod["status"].get("containerStatuses", ())]
    return next(str(s["state"]["terminated"]["finishedAt"]) for s in statuses if "terminated" in s["state"])


# --- the causes


@dataclass
class Cause:
    """What is wrong, and what is to be seen of it."""

    reason: str
    words: str
    resource: Object
    fact: Callable[[Kube], str]
    before: tuple[Object, ...] = ()
    later: Callable[[Kube], None] | None = None
    kube: Kube = field(init=False)
    condition: Object = field(default_factory=dict)
    seen: float = 0.0


def pull_a_wrong_image(kube: Kube) -> None:
    """The pod waits for a node; meanwhile its image is spoilt. An address on this machine: nothing goes out."""
    pod = kube.wait("the pod", lambda: kube.find("pods"), 30)[0]["metadata"]["name"]
    container = kube.find("pods")[0]["spec"]["containers"][0]["name"]
    kube.kubectl("set", "image", f"pod/{pod}", f"{container}=localhost:1/nope:1")
    kube.kubectl("label", "node", "--all", "finetune.dev/test=held", "--overwrite")


CAUSES = {
    "a GPU that no node has": Cause(
        "Unschedulable", "Insufficient example.com/gpu", dataset(resources={"limits": {"example.com/gpu": 1}}),
        judged_by_the_scheduler,
    ),
    "an image that is not there": Cause(
        "ImagePullFailed", "localhost:1/nope:1", dataset(scheduling={"nodeSelector": HELD}), event("Failed"),
        later=pull_a_wrong_image,
    ),
    "a quota on pods": Cause(
        "QuotaExceeded", "exceeded quota: none", dataset(), event("FailedCreate"), (quota(pods="0"),),
    ),
    "a quota on Jobs": Cause(
        "QuotaExceeded", "exceeded quota: none", dataset(), created, (quota(count__jobs_batch="0"),),
    ),
    "pods that admission refuses": Cause(
        "CreationDenied", "maximum memory usage per Pod is 1Mi", dataset(), event("FailedCreate"), (LIMIT_RANGE,),
    ),
    "a store that is not provisioned": Cause(
        "StorageUnavailable", '"absent" not found', dataset(), event("ProvisioningFailed"),
        (claim("finetune-artifacts", "absent"),),
    ),
    "a source that is not there": Cause(
        "SourceNotFound", "'raw'", dataset(source={"persistentVolumeClaim": {"claimName": "raw", "path": "*"}}), created
    ),
    "a Secret that is not there": Cause(
        "CreateContainerConfigError", '"absent" not found', resource("ModelDeployment", "gated", {"baseModel": GATED}),
        event("Failed"),
    ),
    # Less than an interpreter's own data: with a little more, the kernel may page its files in and out for a minute.
    "too little memory": Cause(
        "HostOutOfMemory", "spec.resources.limits.memory", dataset(resources={"limits": {"memory": "12Mi"}}), died
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _observed() -> Iterator[None]:
    """Set everything up, then look until every cause has its name."""
    for cause in CAUSES.values():
        cause.kube = fresh_namespace()
        cause.kube.apply(*cause.before, cause.resource)
    for cause in CAUSES.values():
        if cause.later:
            cause.later(cause.kube)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and not all(cause.seen for cause in CAUSES.values()):
        look(list(CAUSES.values()))
        time.sleep(0.2)
    yield
    next(iter(CAUSES.values())).kube.kubectl("label", "node", "--all", "finetune.dev/test-")
    for cause in CAUSES.values():
        cause.kube.kubectl("delete", "namespace", cause.kube.namespace, "--wait=false")


def look(causes: list[Cause]) -> None:
    """One list of everything, so that each look is as quick for ten causes as for one."""
    items = causes[0].kube.find_everywhere("datasets,modeldeployments")
    now = time.time()
    by_namespace = {item["metadata"]["namespace"]: item for item in items}
    for cause in causes:
        status = by_namespace.get(cause.kube.namespace, {}).get("status", {})
        ready: Object = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        if not cause.seen:
            cause.condition = ready
            is_named = ready.get("reason") == cause.reason and cause.words in ready["message"]
            cause.seen = now if is_named else 0.0


@pytest.mark.parametrize("name", CAUSES)
def test_the_condition_names_the_cause(name: str, record_property: Callable[[str, object], None]) -> None:
    cause = CAUSES[name]
    assert cause.seen, f"{cause.condition}\n{cause.kube.picture()}"
    fact = datetime.fromisoformat(cause.fact(cause.kube)).timestamp()
    # Time stamps of Kubernetes are whole seconds, cut: the fact may be up to a second younger.
    delay = cause.seen - fact
    record_property("seconds", round(delay, 1))
    print(f"{delay:5.1f} s  {cause.reason}: {cause.condition['message']}")
    assert delay < SECONDS


def test_the_words_do_not_change_while_the_cause_stays() -> None:
    """The kubelet and the Job controller try again and again; each try must not be a write."""
    before = {name: version(cause) for name, cause in CAUSES.items()}
    time.sleep(10)
    after = {name: version(cause) for name, cause in CAUSES.items()}
    assert after == before


def version(cause: Cause) -> str:
    return str(cause.kube.find("datasets,modeldeployments")[0]["metadata"]["resourceVersion"])


def test_the_kubelet_evicts_a_pod_over_its_limit_of_the_node_s_disk(kube: Kube) -> None:
    # So slow that the kubelet, who looks every ten seconds, finds it running, and that it does not end well meanwhile.
    kube.apply(dataset(resources={"limits": {"ephemeral-storage": "1", "cpu": "20m"}}))
    failure = kube.wait("the eviction", lambda: kube.status("dataset", "rows").get("failure"), SECONDS)
    assert failure["reason"] == "EphemeralStorageFull"
    assert "exceeds the total limit" in failure["message"]
