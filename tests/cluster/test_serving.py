"""Two jobs' adapters on one base: each answers as itself, whatever is replaced, spoilt or killed.

In order: each test goes on where the one before ended. Jobs learn to answer everything with one colour, so that every
answer tells whose it is.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cluster.kube import Kube, Object
from tests.cluster.objects import dataset, deployment, job
from tests.cluster.processes import kill
from tools.bench.serving.steady import Asked, Steady

pytestmark = pytest.mark.cluster

ONE = {"name": "one", "fineTuneJob": {"name": "first"}}
TWO = {"name": "two", "fineTuneJob": {"name": "second"}}
QUESTION = "number 7 of 9: colour of sky"
PROMPT = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
"""As the tiny base's chat template writes it."""


def answering(colour: str) -> Object:
    """Rows whose answer is always the same."""
    turns = [
        [{"role": "user", "content": f"number {n} of {n + 2}: colour of sky"}, {"role": "assistant", "content": colour}]
        for n in range(96)
    ]
    jsonl = "".join(json.dumps({"messages": each}) + "\n" for each in turns)
    return dataset(f"{colour}s", source={"inline": {"jsonl": jsonl}})


def learning(name: str, colour: str) -> Object:
    return job(
        name,
        dataset={"name": f"{colour}s"},
        hyperparameters={"epochs": 3, "learningRate": 0.003, "globalBatchSize": 4, "packing": False},
        evaluation={"metrics": []},
        resources={"requests": {"cpu": "100m", "memory": "512Mi"}},
    )


@pytest.fixture(scope="module")
def url(lab: Kube) -> str:
    """Of `pair`, which serves both."""
    lab.apply(
        *(answering(colour) for colour in ("green", "blue", "red")),
        *(learning("first", "green"), learning("second", "blue")),
        deployment("pair", adapters=[ONE, TWO]),
    )
    lab.wait_ready("modeldeployment", "pair", 300)
    service = lab.get("service", "pair")
    assert service is not None
    return f"http://{service['spec']['clusterIP']}:8080"


def digests(kube: Kube) -> dict[str, str]:
    """Adapter -> the artifact that is wanted or served."""
    return {each["name"]: each["digest"] for each in kube.status("modeldeployment", "pair")["adapters"]}


def pods(kube: Kube) -> dict[str, Object]:
    found = kube.find("pods", "finetune.dev/role=serve,finetune.dev/name=pair")
    return {pod["metadata"]["name"]: pod for pod in found}


def texts(asked: list[Asked], model: str) -> set[str]:
    return {each.text for each in asked if each.model == model}


def beside(kube: Kube, kind: str, name: str) -> Object:
    return kube.wait(f"the {kind}", lambda: kube.get(kind, name), 30)


def test_each_of_two_jobs_adapters_answers_as_itself(lab: Kube, url: str) -> None:
    # The first of the two to be made was served alone for a while.
    lab.wait("the last roll-out's pods to go", lambda: len(pods(lab)) == 1, 60)
    steady = Steady(url, PROMPT)
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as several:
        asked = list(several.map(lambda model: steady.ask(client, model), ["one", "two", "pair"] * 8))
        unknown = steady.ask(client, "three")
    assert (texts(asked, "one"), texts(asked, "two")) == ({"green"}, {"blue"})
    assert not texts(asked, "pair") & {"green", "blue"}, "the base answers as the base"
    assert unknown.status == httpx.codes.NOT_FOUND


def test_a_new_run_replaces_its_adapter_and_no_request_notices(lab: Kube, url: str) -> None:
    before, old = digests(lab), pods(lab)
    uid = beside(lab, "deployment", "pair")["metadata"]["uid"]
    steady = Steady(url, PROMPT)
    with steady.asking(["one", "two"], clients=4):
        lab.merge("finetunejob", "first", {"spec": {"dataset": {"name": "reds"}}})
        lab.wait("an answer of the new run", lambda: "red" in texts(steady.answers, "one"), 180)
        lab.wait("the old pod's end", lambda: old.keys().isdisjoint(pods(lab)), 60)
        lab.wait_ready("modeldeployment", "pair", 60)
    assert steady.failures == []
    assert (texts(steady.answers, "one"), texts(steady.answers, "two")) == ({"green", "red"}, {"blue"})
    after = digests(lab)
    assert (after["one"] != before["one"], after["two"] == before["two"]) == (True, True)
    assert beside(lab, "deployment", "pair")["metadata"]["uid"] == uid, "an ordinary roll-out"


@contextmanager
def truncated(kube: Kube, digest: str) -> Iterator[None]:
    """An artifact's weights in the store lack their last byte meanwhile."""
    claim = kube.get("pvc", "finetune-artifacts")
    assert claim is not None
    volume = kube.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    root = Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"])
    (weights,) = root.glob(f"artifacts/*{digest.removeprefix('sha256:')}*/adapter_model.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    try:
        yield
    finally:
        weights.write_bytes(content)


def test_a_spoilt_artifact_is_refused_while_the_one_before_serves(lab: Kube, url: str) -> None:
    runs = lab.status("finetunejob", "first")["runs"]
    served = digests(lab)["one"]
    (earlier,) = {run["artifact"]["digest"] for run in runs} - {served}
    steady = Steady(url, PROMPT)
    with truncated(lab, earlier), steady.asking(["one", "two"]):
        lab.merge("modeldeployment", "pair", {"spec": {"adapters": [{**ONE, "digest": earlier}, TWO]}})
        lab.wait(
            "the fault to be named",
            lambda: lab.condition("modeldeployment", "pair", "Ready").get("reason") == "ChecksumMismatch",
            60,
        )
        status = lab.status("modeldeployment", "pair")
        lab.merge("modeldeployment", "pair", {"spec": {"adapters": [ONE, TWO]}})
        lab.wait_ready("modeldeployment", "pair", 60)
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert "adapter_model.safetensors: has" in ready["message"]
    assert status["readyReplicas"] == 1
    assert steady.failures == []
    assert (texts(steady.answers, "one"), texts(steady.answers, "two")) == ({"red"}, {"blue"})


@pytest.mark.parametrize(("container", "module"), [("engine", "finetune_server"), ("prober", "finetune_prober")])
def test_a_process_that_is_killed_under_load_comes_back_proven(
    lab: Kube, url: str, container: str, module: str
) -> None:
    lab.wait("the last roll-out's pods to go", lambda: len(pods(lab)) == 1, 60)
    (pod,) = pods(lab).values()
    name = pod["metadata"]["name"]
    steady = Steady(url, PROMPT)
    with httpx.Client(timeout=60) as client:
        alone = {model: {steady.ask(client, model).text} for model in ("one", "two")}
    assert alone["one"] != alone["two"]

    def is_back() -> bool:
        found = {each["name"]: each for each in pods(lab)[name]["status"]["containerStatuses"]}
        return found[container]["restartCount"] == 1 and all(each["ready"] for each in found.values())

    with steady.asking(["one", "two"], clients=4):
        lab.wait("some answers", lambda: len(steady.answers) > 8, 30)
        kill(pod, module)
        lab.wait("the container to be back", is_back, 120)
        lab.wait_ready("modeldeployment", "pair", 30)
        count = len(steady.answers)
        lab.wait("answers after it", lambda: len(steady.answers) > count + 8, 30)
    assert all(each.status == 0 or each.status >= httpx.codes.INTERNAL_SERVER_ERROR for each in steady.failures)
    assert {model: texts(steady.answers, model) for model in alone} == alone, "never another's answer"
    proofs = lab.kubectl("logs", name, "--container=prober").stdout.count("ready; proven: one, two")
    assert proofs == (2 if container == "engine" else 1), "the prober has proven what is there now"
