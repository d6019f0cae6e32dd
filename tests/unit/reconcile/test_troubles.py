"""What keeps pods from running: what the pod says, what Events say, and that the words do not change with each try."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.failure import Failure, FailureReason
from finetune_operator.reconcile.troubles import NO_REPORTS, Trouble, in_doubt, pod_trouble, reports_of, stable
from tests import factories
from tests.factories import NOW, Object
from tests.unit.reconcile.world import World

QUOTA = "exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0"
SECURITY = 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
MOUNT = 'MountVolume.SetUp failed for volume "pvc-1" : mount failed: exit status 32'


def a_job(**fields: Any) -> Object:
    metadata = {"name": "j", "namespace": "n", "uid": "job", "labels": {}, "creationTimestamp": factories.stamp(NOW)}
    return {"kind": "Job", "metadata": metadata, **fields}


def a_pod(**status: Any) -> Object:
    return factories.make_pod(a_job(), **status)


def a_claim(phase: str = "Pending") -> Object:
    metadata = {"name": "artifacts", "uid": "claim", "creationTimestamp": factories.stamp(NOW)}
    return {"kind": "PersistentVolumeClaim", "metadata": metadata, "status": {"phase": phase}}


def starting(**conditions: str) -> Object:
    """A pod between node and first container."""
    found = [{"type": type_, "status": status} for type_, status in conditions.items()]
    waiting = {"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}
    return a_pod(phase="Pending", conditions=found, containerStatuses=[waiting])


def waiting(reason: str, message: str, **container: Any) -> Object:
    state = {"waiting": {"reason": reason, "message": message}}
    return a_pod(phase="Pending", containerStatuses=[{"name": "main", "image": "nope:1", "state": state, **container}])


def restarted(ended: Object, *, now: str, kind: str = "containerStatuses") -> Object:
    """A container that is restarted again and again, seen at one moment of it."""
    state: Object = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}}
    state = {"waiting": state, "running": {"running": {}}, "terminated": {"terminated": ended}}[now]
    if now == "waiting":
        state = state["waiting"]
    container = {
        "name": "deliver",
        "ready": False,
        "restartCount": 2,
        "state": state,
        "lastState": {"terminated": ended},
    }
    return a_pod(phase="Pending", **{kind: [container]})


# --- whose Events are wanted


@pytest.mark.parametrize(
    ("children", "claims", "wanted"),
    [
        pytest.param({"Job": [a_job()]}, [], ["job"], id="a Job without a pod"),
        pytest.param(
            {"Job": [a_job(spec={"parallelism": 2})], "Pod": [a_pod()]}, [], ["job"], id="a group that lacks a member"
        ),
        pytest.param({"Job": [a_job(spec={"suspend": True})]}, [], [], id="one that waits in a queue"),
        pytest.param({"Job": [a_job()], "Pod": [a_pod()]}, [a_claim()], [], id="one whose pod runs"),
        pytest.param(
            {"Job": [a_job(status={"conditions": [{"type": "Failed", "status": "True"}]})]}, [], [], id="one that ended"
        ),
        pytest.param({"Pod": [starting()]}, [a_claim("Bound")], ["pod"], id="a pod that starts"),
        pytest.param({"Pod": [starting()]}, [a_claim()], ["pod", "claim"], id="a pod that starts without its claim"),
        pytest.param({"Pod": [starting(PodReadyToStartContainers="True")]}, [], [], id="a pod that pulls its image"),
        pytest.param({"Pod": [a_pod(**factories.unschedulable())]}, [a_claim()], [], id="a pod that fits nowhere"),
    ],
)
def test_events_are_wanted_only_where_nothing_else_explains(
    children: dict[str, list[Object]], claims: list[Object], wanted: list[str]
) -> None:
    names = ["pod" if doubt.kind == "Pod" else doubt.uid for doubt in in_doubt(children, claims)]
    assert names == wanted


def test_a_doubt_begins_when_the_pod_has_its_node() -> None:
    pod = starting()
    later = NOW + timedelta(hours=1)
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": factories.stamp(later)}
    pod["status"]["conditions"] = [scheduled]
    assert [doubt.since for doubt in in_doubt({"Pod": [pod]}, [])] == [later]


# --- what Events say


@pytest.mark.parametrize(
    ("regarding", "reason", "note", "expected"),
    [
        pytest.param(
            a_job(), "FailedCreate", f'Error creating: pods "j-x7k" is forbidden: {QUOTA}',
            Trouble("QuotaExceeded", f"the pod was refused: {QUOTA}"), id="quota",
        ),
        pytest.param(
            a_job(), "FailedCreate", f'Error creating: pods "j-x7k" is forbidden: {SECURITY}',
            Trouble("PodSecurityDenied", f"the pod was refused: {SECURITY}"), id="Pod Security",
        ),
        pytest.param(
            a_job(), "FailedCreate", 'Error creating: admission webhook "x" denied it',
            Trouble("CreationDenied", 'the pod was refused: admission webhook "x" denied it'), id="webhook",
        ),
        pytest.param(starting(), "FailedMount", MOUNT, Trouble("StorageUnavailable", MOUNT), id="mount"),
        pytest.param(
            starting(), "FailedMount", 'MountVolume.SetUp failed for volume "plan" : configmap "j" not found',
            Trouble("FailedMount", 'MountVolume.SetUp failed for volume "plan" : configmap "j" not found'), id="plan",
        ),
        pytest.param(starting(), "FailedAttachVolume", "busy", Trouble("StorageUnavailable", "busy"), id="attach"),
        pytest.param(
            a_claim(), "ProvisioningFailed", "no pool", Trouble("StorageUnavailable", "claim artifacts: no pool"),
            id="provisioner",
        ),
        pytest.param(
            starting(), "FailedCreatePodSandBox", "no address", Trouble("FailedCreatePodSandBox", "no address"),
            id="network",
        ),
    ],
)  # fmt: skip
def test_an_event_is_translated(regarding: Object, reason: str, note: str, expected: Trouble) -> None:
    is_job, is_claim = regarding["kind"] == "Job", regarding["kind"] == "PersistentVolumeClaim"
    children = {} if is_claim else {regarding["kind"]: [regarding]}
    doubts = in_doubt(children, []) if not is_claim else in_doubt({"Pod": [starting()]}, [regarding])
    reports = reports_of(doubts, [factories.event(regarding, reason, note)])
    assert reports.by_uid[regarding["metadata"]["uid"]] == expected
    if not is_job:
        pod = starting() if is_claim else regarding
        assert pod_trouble(pod, reports) == expected


def test_the_newest_event_speaks_but_a_summary_says_least() -> None:
    pod = starting()
    doubts = in_doubt({"Pod": [pod]}, [])
    summary = "Unable to attach or mount volumes: unmounted volumes=[store]: timed out waiting for the condition"
    events = [
        factories.event(pod, "FailedMount", "new", seen=NOW + timedelta(seconds=9)),
        factories.event(pod, "FailedMount", "old"),
        factories.event(pod, "FailedMount", summary, seen=NOW + timedelta(minutes=2)),
        factories.event(pod, "FailedMount", 'object "n"/"j" not registered', seen=NOW + timedelta(minutes=3)),
        factories.event(a_pod(), "FailedMount", "of another pod", seen=NOW + timedelta(minutes=4)),
    ]
    assert [found.message for found in reports_of(doubts, events).by_uid.values()] == ["new"]


def test_an_old_report_does_not_outlive_its_cause() -> None:
    pod = starting()
    reports = reports_of(in_doubt({"Pod": [pod]}, []), [factories.event(pod, "FailedMount", MOUNT)])
    pod["status"]["conditions"] = [{"type": "PodReadyToStartContainers", "status": "True"}]
    assert pod_trouble(pod, reports) == Trouble("PodStarting", "the pod is starting")


# --- what a pod says


@pytest.mark.parametrize(
    "words",
    [
        'persistentvolumeclaim "raw" not found',
        "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
    ],
)
def test_a_claim_that_keeps_a_pod_from_a_node_is_not_called_unschedulable(words: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": words}
    pod = a_pod(phase="Pending", conditions=[condition])
    assert pod_trouble(pod) == Trouble("StorageUnavailable", words)
    doubts = in_doubt({"Pod": [pod]}, [a_claim()])
    reports = reports_of(doubts, [factories.event(a_claim(), "ProvisioningFailed", "no pool")])
    assert pod_trouble(pod, reports) == Trouble("StorageUnavailable", "claim artifacts: no pool")


def test_the_words_about_an_image_do_not_change_by_turns() -> None:
    cause = 'failed to pull and unpack image "docker.io/library/nope:1": dial tcp: lookup docker.io: no such host'
    turns = [
        waiting("ErrImagePull", cause),
        waiting("ImagePullBackOff", f'Back-off pulling image "nope:1": ErrImagePull: {cause}'),
    ]
    assert {pod_trouble(pod) for pod in turns} == {Trouble("ImagePullFailed", f"container main: {cause}")}
    older = pod_trouble(waiting("ImagePullBackOff", 'Back-off pulling image "nope:1"'))
    assert older == Trouble("ImagePullFailed", "container main: image nope:1 cannot be pulled")


def test_the_client_port_is_not_part_of_a_cause() -> None:
    tries = {stable(f"read udp 10.0.0.1:{port}->10.96.0.10:53: i/o timeout") for port in (40123, 53211)}
    assert tries == {"read udp 10.0.0.1->10.96.0.10:53: i/o timeout"}


FULL = Failure(reason=FailureReason.STORAGE_UNAVAILABLE, message="/store: no manifest")


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        pytest.param(
            {"exitCode": 74, "reason": "Error", "message": FULL.to_json()},
            Trouble("StorageUnavailable", "container deliver ended: /store: no manifest"),
            id="its own word",
        ),
        pytest.param(
            {"exitCode": 137, "reason": "OOMKilled"},
            Trouble("HostOutOfMemory", "container deliver ended: the container exceeded its memory limit"),
            id="out of memory",
        ),
        pytest.param(
            {
                "exitCode": 128,
                "reason": "StartError",
                "message": "runc create failed: container init was OOM-killed (memory limit too low?)",
            },
            Trouble("HostOutOfMemory", "container deliver ended: the container exceeded its memory limit"),
            id="too little memory to start",
        ),
        pytest.param(
            {"exitCode": 1, "reason": "Error", "message": "Traceback\nboom"},
            Trouble("TrainerCrashed", "container deliver ended: Traceback\nboom"),
            id="the log's last lines",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["initContainerStatuses", "containerStatuses"])
def test_a_container_that_is_restarted_says_why_at_every_moment(kind: str, ended: Object, expected: Trouble) -> None:
    moments = [restarted(ended, now=now, kind=kind) for now in ("waiting", "running", "terminated")]
    assert {pod_trouble(pod) for pod in moments} == {expected}


def test_a_container_that_became_ready_again_is_in_no_trouble() -> None:
    pod = restarted({"exitCode": 1}, now="running")
    pod["status"]["phase"] = "Running"
    pod["status"]["containerStatuses"][0]["ready"] = True
    assert pod_trouble(pod) is None


def test_advice_adds_the_remedy_of_a_reason_that_has_one() -> None:
    assert Trouble("QuotaExceeded", "no pods left.").advice == (
        "no pods left. Lower spec.resources, or ask for more quota."
    )
    assert Trouble("PodStarting", "the pod is starting").advice == "the pod is starting"


# --- where it is to be seen


HUB = {"huggingFace": {"repo": "org/model"}}


@pytest.mark.parametrize(
    "here",
    [
        pytest.param(World(factories.make_dataset()), id="Dataset"),
        pytest.param(World(factories.make_job(), factories.ready_dataset()), id="FineTuneJob"),
        pytest.param(World(factories.make_deployment(adapters=[], baseModel=HUB)), id="ModelDeployment"),
    ],
)
def test_the_condition_has_the_name_of_the_cause_and_loses_it_with_the_cause(here: World) -> None:
    here.settle()
    before = here.says("Ready")
    job = here.jobs()[0]
    here.reports = reports_of(in_doubt({"Job": [job]}, []), [factories.event(job, "FailedCreate", QUOTA)])
    here.settle()
    said = f"the pod was refused: {QUOTA}. Lower spec.resources, or ask for more quota."
    assert here.says("Ready") == f"False QuotaExceeded: {said}"
    assert here.condition("Reconciling") is not None
    here.reports = NO_REPORTS
    here.settle()
    assert here.says("Ready") == before


def test_a_deployment_whose_pods_are_refused_says_so() -> None:
    here = World(factories.make_deployment(), factories.finished_job())
    here.settle()
    words = f'pods "support-6c9-x7k" is forbidden: {SECURITY}'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    here.children["Deployment"][0]["status"] = {"conditions": [failure]}
    here.settle()
    assert here.says("Ready").startswith(f"False PodSecurityDenied: a pod was refused: {SECURITY}. ")
