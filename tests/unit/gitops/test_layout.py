"""The example repository: every file is used, waves are in order, values and paths exist."""

import json
from typing import Any

import jsonschema
import yaml

from tests.documents import ROOT

FOLDER = ROOT / "examples/gitops"
WAVE = "argocd.argoproj.io/sync-wave"
VALUES = json.loads((ROOT / "charts/finetune-operator/values.schema.json").read_text())


def objects(folder: str) -> list[dict[str, Any]]:
    return [item for file in sorted((FOLDER / folder).glob("*.yaml")) for item in yaml.safe_load_all(file.read_text())]


def wave(item: dict[str, Any]) -> int:
    return int(item["metadata"].get("annotations", {}).get(WAVE, "0"))


def test_crds_come_before_the_operator_and_both_before_the_teams() -> None:
    applications = {item["metadata"]["name"]: item for item in objects("platform")}
    order = sorted(applications, key=lambda name: wave(applications[name]))
    assert order == ["finetune-crds", "finetune-operator", "team-a"]
    assert len({wave(item) for item in applications.values()}) == 3
    assert "prune" not in applications["finetune-crds"]["spec"]["syncPolicy"]["automated"]


def test_applications_name_folders_that_exist_and_values_that_the_chart_takes() -> None:
    for item in objects("platform"):
        source = item["spec"]["source"]
        in_team_repository = source["repoURL"].endswith("/teams/tuning.git")
        assert ((FOLDER if in_team_repository else ROOT) / source["path"]).is_dir()
        jsonschema.validate(source.get("helm", {}).get("valuesObject", {}), VALUES)
    release = next(item for item in objects("flux") if item["kind"] == "HelmRelease")
    jsonschema.validate(release["spec"]["values"], VALUES)
    assert (ROOT / release["spec"]["chart"]["spec"]["chart"]).is_dir()


def test_the_teams_folder_lists_its_files_and_its_objects_have_no_waves() -> None:
    listed = yaml.safe_load((FOLDER / "team-a/kustomization.yaml").read_text())["resources"]
    written = sorted(file.name for file in (FOLDER / "team-a").glob("*.yaml") if file.name != "kustomization.yaml")
    assert sorted(listed) == written
    found = {item["kind"]: item for item in objects("team-a") if item["kind"] != "Kustomization"}
    assert {kind: wave(item) for kind, item in found.items()} == {
        "Namespace": -1, "Dataset": 0, "FineTuneJob": 0, "ModelDeployment": 0,
    }  # fmt: skip
    checked = next(item for item in objects("flux") if item["kind"] == "Kustomization")["spec"]["healthChecks"]
    assert {item["name"] for item in checked} == {found["Dataset"]["metadata"]["name"]}
