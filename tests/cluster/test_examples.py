"""Every YAML in examples/ and in the documentation is accepted by the real API server."""

import json
from itertools import groupby

import pytest
import yaml

from tests.cluster.kube import ROOT, Kube, Object
from tests.documents import blocks, completed

pytestmark = pytest.mark.cluster

EXAMPLES = {
    str(file.relative_to(ROOT)): [item for item in yaml.safe_load_all(file.read_text()) if item]
    for file in sorted((ROOT / "examples").rglob("*.yaml"))
}
PAGES = {
    page: [completed(item) for block in found for item in yaml.safe_load_all(block.text) if "apiVersion" in item]
    for page, found in groupby(blocks("yaml"), lambda block: block.place.rsplit(":", 1)[0])
}
OURS = {
    name: wanted
    for name, items in {**EXAMPLES, **PAGES}.items()
    if (wanted := [item for item in items if item["apiVersion"].startswith("finetune.dev/")])
}


@pytest.mark.parametrize("name", OURS)
def test_yaml_is_accepted(system: Kube, name: str) -> None:
    for item in OURS[name]:
        item["metadata"].pop("namespace", None)
    text = yaml.safe_dump_all(OURS[name])
    answer = system.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text).stdout
    assert answer.count("server dry run") == len(OURS[name])


def test_applying_every_example_again_under_another_name_changes_nothing(kube: Kube) -> None:
    """As Argo CD and Flux do: server-side apply under a manager of their own, again and again."""
    unique = {(item["kind"], item["metadata"]["name"]): item for name in EXAMPLES for item in OURS.get(name, [])}
    text = yaml.safe_dump_all(unique.values())
    # What the objects ask for is not concerned: Jobs are made, their pods are refused.
    quota = {"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": 0}}}
    kube.apply({"apiVersion": "v1", "kind": "ResourceQuota", **quota})
    theirs = ("--server-side", "--field-manager=argocd-controller", "-f", "-")
    kube.kubectl("apply", *theirs, stdin=text)

    def objects() -> list[Object]:
        kinds = "datasets,finetunejobs,modeldeployments,batchinferences"
        return list(json.loads(kube.kubectl("get", kinds, "-o", "json", "--show-managed-fields").stdout)["items"])

    def are_seen() -> bool:
        return all("observedGeneration" in item.get("status", {}) for item in objects())

    kube.wait("a status of every example", are_seen)
    found = kube.kubectl("diff", *theirs, stdin=text, check=False)
    assert (found.returncode, found.stdout) == (0, "")
    kube.kubectl("apply", *theirs, stdin=text)
    assert len(objects()) == len(unique)
    for item in objects():
        assert item["metadata"]["generation"] == 1
        assert "finalizers" not in item["metadata"]
        for entry in item["metadata"]["managedFields"]:
            if entry["manager"] != "argocd-controller":
                assert (entry["subresource"], set(entry["fieldsV1"])) == ("status", {"f:status"}), entry
