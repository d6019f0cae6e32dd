"""Built objects: spelt as Kubernetes spells them, restricted, bounded, and with nothing secret in them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from finetune_contract.datasets import DatasetPlan
from finetune_contract.methods import DpoPlan
from finetune_contract.serving import ServingPlan
from finetune_contract.staging import StagePlan
from finetune_contract.training import TrainingPlan
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.finetunejobstatus import (
    ResolvedInputs,
    Run,
)
from finetune_operator.manifests import (
    training,
)
from finetune_operator.manifests.accelerators import accelerators
from finetune_operator.manifests.naming import child_name
from tests import factories
from tests.factories import NOW, Object, digest
from tests.unit.manifests import objects
from tests.unit.manifests.objects import (
    KEY,
    LONG,
    PLACE,
    SETTINGS,
    SOURCES,
    TEMPLATE,
    collected,
    every_object,
    prepared,
    served,
    staged,
    trained,
)


@pytest.mark.parametrize(
    ("method", "adapter", "rate"),
    [
        ("SFT", "LoRA", 2e-4),
        ("CPT", "None", 2e-5),
        ("Reward", "DoRA", 1e-4),
        ("DPO", "QLoRA", 1e-5),
        ("KTO", "None", 1e-6),
    ],
)
def test_a_learning_rate_fits_method_and_adapter(method: str, adapter: str, rate: float) -> None:
    plan = TrainingPlan.model_validate_json(trained(method=method, adapter={"type": adapter})[0]["data"]["plan.json"])
    assert plan.hyperparameters.learning_rate == pytest.approx(rate)
    assert (plan.adapter.variant.value if plan.adapter else "None") == adapter


def test_a_methods_settings_reach_its_plan() -> None:
    rewards = [
        {"regex": {"pattern": "x"}}, {"jsonSchema": {"schema": "{}"}, "weight": -1}, {"length": {"maxTokens": 9}},
    ]  # fmt: skip
    written: dict[str, Object] = {
        "DPO": {"beta": 0.3, "loss": "robust", "labelSmoothing": 0.1},
        "ORPO": {"beta": 0.2},
        "SimPO": {"beta": 3.0, "gamma": 0.5},
        "KTO": {"beta": 0.1, "desirableWeight": 2.0, "undesirableWeight": 1.0},
        "GRPO": {"rewards": rewards, "generations": 2, "beta": 0.0, "temperature": 0.7, "maxCompletionLength": 32},
    }
    for method, settings in written.items():
        spec: Object = {"method": method, method.lower(): settings}
        (manifest, _) = trained(**spec)
        plan = json.loads(manifest["data"]["plan.json"])
        found = plan["online" if method == "GRPO" else method.lower()]
        if method == "GRPO":
            regex, schema, length = found.pop("rewards")
            assert (regex["function"], regex["pattern"]) == ("Regex", "x")
            assert (schema["function"], schema["jsonSchema"], schema["weight"]) == ("JSONSchema", "{}", -1.0)
            assert (length["function"], length["maxTokens"]) == ("Length", 9)
        assert found == {name: value for name, value in settings.items() if name != "rewards"}
    assert TrainingPlan.model_validate(json.loads(trained(method="DPO")[0]["data"]["plan.json"])).dpo == DpoPlan()


OBJECTS = [pytest.param(item, id=name) for name, item in every_object()]

WITH_PODS = [pytest.param(item, id=name) for name, item in every_object() if item["kind"] in ("Job", "Deployment")]

MODELS = {
    "Job": "V1Job",
    "ConfigMap": "V1ConfigMap",
    "Deployment": "V1Deployment",
    "Service": "V1Service",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
}


@pytest.mark.parametrize("item", OBJECTS)
def test_every_field_is_one_of_kubernetes(item: Object) -> None:
    api = client.ApiClient()
    wanted = _in_words(item)
    parsed = api.deserialize(json.dumps(wanted), MODELS[item["kind"]], "application/json")
    assert api.sanitize_for_serialization(parsed) == wanted  # type: ignore[no-untyped-call]  # the client has few types


def _in_words(item: Any) -> Any:
    """The client knows quantities as strings only; the API server takes numbers, too."""
    if isinstance(item, dict):
        resources = {"requests", "limits"}
        return {
            key: {name: str(value) for name, value in child.items()} if key in resources else _in_words(child)
            for key, child in item.items()
        }
    return [_in_words(child) for child in item] if isinstance(item, list) else item


def restricted(pod: Object) -> list[str]:
    """What Pod Security `restricted` would refuse (Kubernetes documentation, "Pod Security Standards")."""
    wrong = [
        f"volume {volume['name']}"
        for volume in pod["volumes"]
        if len(volume) != 2 or not {"configMap", "emptyDir", "persistentVolumeClaim", "secret"} & volume.keys()
    ]
    wrong += [field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    context = pod["securityContext"]
    if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
        wrong.append("runAsNonRoot")
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        wrong.append("seccompProfile")
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        own = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            wrong.append(f"{container['name']} privileges")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            wrong.append(f"{container['name']} capabilities")
        if any("hostPort" in port for port in container.get("ports", ())):
            wrong.append(f"{container['name']} hostPort")
    return wrong


@pytest.mark.parametrize("item", WITH_PODS)
def test_every_pod_is_restricted_and_has_no_token(item: Object) -> None:
    pod = item["spec"]["template"]["spec"]
    assert restricted(pod) == []
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["image"] in ("operator:1", "trainer:1", SETTINGS.vllm_image, SETTINGS.tgi_image)


@pytest.mark.parametrize("item", WITH_PODS)
def test_every_mount_has_its_volume_and_every_volume_is_mounted(item: Object) -> None:
    pod = item["spec"]["template"]["spec"]
    containers = (*pod.get("initContainers", ()), *pod["containers"])
    mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert mounted == set(volumes)
    assert len(volumes) == len(set(volumes))


@pytest.mark.parametrize("build", [prepared, staged, trained, served, collected])
def test_pods_stay_together_where_the_claim_is_on_one_node(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def pods() -> list[Object]:
        return [item["spec"]["template"] for item in build() if item["kind"] in ("Job", "Deployment")]

    assert all("affinity" not in pod["spec"] for pod in pods())
    one_node = SETTINGS.model_copy(update={"claim_access_mode": "ReadWriteOnce"})
    monkeypatch.setattr(objects, "SETTINGS", one_node)
    for pod in pods():
        (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        # The first pod is let in because it matches its own term.
        assert term["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_secrets_are_named_never_copied() -> None:
    env = {entry["name"]: entry for entry in staged("hub")[1]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
    container = staged("s3")[1]["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "aws"}}]
    for source in SOURCES:
        assert "token" not in staged(source)[0]["data"]["plan.json"]


@pytest.mark.parametrize("item", OBJECTS)
def test_children_have_their_owner_and_the_claim_has_none(item: Object) -> None:
    owners = item["metadata"].get("ownerReferences")
    if item["kind"] == "PersistentVolumeClaim":
        assert owners is None
        return
    (owner,) = owners
    assert owner["controller"] is True
    assert owner["kind"] == item["metadata"]["labels"]["finetune.dev/kind"]
    generation = "0" if owner["kind"] == "PersistentVolumeClaim" else "1"  # claims have none
    assert item["metadata"]["annotations"]["finetune.dev/generation"] == generation


@pytest.mark.parametrize("item", [staged()[1], trained()[1], prepared()[1]], ids=["stage", "train", "prepare"])
def test_a_job_is_one_pod_and_one_try(item: Object) -> None:
    spec = item["spec"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_only_training_pods_go_where_the_job_says() -> None:
    pod, stage = (build()[1]["spec"]["template"]["spec"] for build in (trained, staged))
    assert (pod["nodeSelector"], pod["priorityClassName"]) == (PLACE["nodeSelector"], "batch")
    assert "nodeSelector" not in stage
    assert stage["tolerations"] == pod["tolerations"]


@pytest.mark.parametrize("build", [prepared, trained, lambda name, number: staged("hub", name, number)])
def test_names_of_long_owners_fit_and_differ(build: Any) -> None:
    made = [build(name, number)[1] for name in ("a", LONG, LONG[:-1] + "c") for number in (1, 2, 99)]
    names = [item["metadata"]["name"] for item in made]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in names)
    assert all(len(value) <= 63 for item in made for value in item["metadata"]["labels"].values())
    assert all(len(item["metadata"]["name"]) <= 63 for item in served(LONG))
    assert served(LONG)[1]["metadata"]["labels"]["finetune.dev/plan"] == served(LONG)[0]["metadata"]["name"][-8:]


@given(st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True), st.integers(1, 10_000))
def test_any_owner_has_valid_child_names(owner: str, number: int) -> None:
    name = child_name(owner, "prepare", "3f9c1a", str(number))
    assert len(name) <= 63
    assert name[0].isalpha()
    assert "--" not in name or "--" in owner
    assert name.endswith(f"-prepare-3f9c1a-{number}")


@pytest.mark.parametrize(
    ("manifest", "model"),
    [(prepared()[0], DatasetPlan), (staged()[0], StagePlan), (trained()[0], TrainingPlan), (served()[0], ServingPlan)],
    ids=["prepare", "stage", "train", "serve"],
)
def test_plans_are_immutable_and_parse(manifest: Object, model: Any) -> None:
    assert manifest["immutable"] is True
    plan = model.model_validate_json(manifest["data"]["plan.json"])
    assert plan.to_json() == manifest["data"]["plan.json"]


def test_unset_numbers_of_a_spec_are_the_trainers_to_choose() -> None:
    plan = TrainingPlan.model_validate_json(trained()[0]["data"]["plan.json"])
    assert plan.hyperparameters.max_length is None
    assert plan.hyperparameters.learning_rate == 2e-4
    assert plan.adapter is not None
    full = TrainingPlan.model_validate_json(
        trained(adapter={"type": "None"}, hyperparameters={"maxLength": 512})[0]["data"]["plan.json"]
    )
    assert full.adapter is None
    assert (full.hyperparameters.learning_rate, full.hyperparameters.max_length) == (2e-5, 512)


def test_the_largest_inline_source_fits_a_config_map() -> None:
    plan = prepared(source={"inline": {"jsonl": "\x01" * 128 * 1024}})[0]
    assert len(json.dumps(plan).encode()) < 1024 * 1024


def test_another_plan_is_another_name_and_the_same_plan_the_same() -> None:
    assert served()[0] == served()[0]
    other = served(engine={"maxQueue": 5})
    assert other[0]["metadata"]["name"] != served()[0]["metadata"]["name"]
    assert other[1]["spec"]["template"] != served()[1]["spec"]["template"]


@pytest.mark.parametrize("kind", ["dataset", "base model"])
def test_a_source_in_the_store_s_own_claim_is_no_second_volume_of_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that names one claim in two volumes hangs in ContainerCreating without a word (seen: kubelet 1.34)."""
    volume = {"persistentVolumeClaim": {"claimName": SETTINGS.claim_name, "path": "mine"}}
    monkeypatch.setitem(SOURCES, "store", volume)
    _, job = prepared(source=volume) if kind == "dataset" else staged("store")
    pod = job["spec"]["template"]["spec"]
    claims = [
        entry["persistentVolumeClaim"]["claimName"] for entry in pod["volumes"] if "persistentVolumeClaim" in entry
    ]
    assert claims == [SETTINGS.claim_name]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/source"] == {"name": "store", "mountPath": "/source", "readOnly": True}
    assert "readOnly" not in mounts["/store"]


@pytest.mark.parametrize("build", [prepared, trained, served])
def test_a_pod_template_adds_to_the_pods_and_takes_nothing_away(build: Any) -> None:
    plain, dressed = build()[1]["spec"]["template"], build(podTemplate=TEMPLATE)[1]["spec"]["template"]
    assert dressed["metadata"]["labels"] == {**plain["metadata"]["labels"], "team": "support"}
    assert dressed["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    pod = dressed["spec"]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["automountServiceAccountToken"] is False
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    for before, after in zip(
        (*plain["spec"].get("initContainers", ()), *plain["spec"]["containers"]),
        (*pod.get("initContainers", ()), *pod["containers"]),
        strict=True,
    ):
        variables = {variable["name"]: variable for variable in after["env"]}
        assert len(variables) == len(after["env"])
        assert all(variables[variable["name"]] == variable for variable in before["env"])
        assert variables["HTTPS_PROXY"]["value"] == "http://proxy:3128"
        assert variables["WANDB_API_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "wandb", "key": "token"}
        assert variables["SSL_CERT_FILE"]["value"] == "/etc/finetune-ca/ca.crt"
        assert {"name": "ca-bundle", "mountPath": "/etc/finetune-ca", "readOnly": True} in after["volumeMounts"]
    assert {
        "name": "ca-bundle",
        "configMap": {"name": "corporate-ca", "items": [{"key": "bundle.pem", "path": "ca.crt"}]},
    } in pod["volumes"]


def test_only_training_pods_have_shared_memory_of_the_wanted_size() -> None:
    volumes = {
        volume["name"]: volume for volume in trained(podTemplate=TEMPLATE)[1]["spec"]["template"]["spec"]["volumes"]
    }
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert "shm" not in {volume["name"] for volume in prepared()[1]["spec"]["template"]["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({"nvidia.com/gpu": 4, "memory": "64Gi"}, 4),
        ({"amd.com/gpu": "2"}, 2),
        ({"nvidia.com/mig-1g.10gb": 3}, 3),
        ({"cpu": 8, "rdma/hca": 1}, 0),
        ({}, 0),
    ],
)
def test_a_training_job_says_how_many_accelerators_it_costs(limits: Object, count: int) -> None:
    job = FineTuneJob.model_validate(factories.make_job(resources={"limits": limits}))
    assert accelerators(job.spec.resources) == count


def test_the_kubelet_gets_the_time_that_is_left_and_some_slack() -> None:
    job = FineTuneJob.model_validate(factories.make_job())
    inputs = ResolvedInputs(dataset=digest("d"), dataset_uri="x", base=digest("b"), base_uri="y")
    run = Run(key=KEY, number=1, stage="s", started_at=NOW, inputs=inputs)
    pod = training.build(job, run, 1, SETTINGS, training.Terms(seconds=600.4))[1]["spec"]["template"]["spec"]
    assert pod["activeDeadlineSeconds"] == 720
    assert "activeDeadlineSeconds" not in trained()[1]["spec"]["template"]["spec"]
