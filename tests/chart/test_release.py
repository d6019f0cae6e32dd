"""The packaged chart of a release renders pods by digest."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import HELM
from tools import release

pytestmark = pytest.mark.skipif(HELM is None, reason="no helm: `make cluster` builds one")
REFERENCES = {
    "operator": ("registry.example.com/team/finetune-operator", "sha256:" + "1" * 64),
    "trainer": ("registry.example.com/team/finetune-trainer", "sha256:" + "2" * 64),
}


def test_the_archive_names_both_images_by_digest(tmp_path: Path) -> None:
    assert HELM is not None
    archive = release.package_chart(Path(HELM), tmp_path, REFERENCES)
    command = [HELM, "template", "x", str(archive), "--kube-version", "1.34"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (deployment,) = [item for item in yaml.safe_load_all(rendered) if item and item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {item["name"]: item.get("value") for item in container["env"]}
    assert container["image"] == "@".join(REFERENCES["operator"])
    assert variables["FINETUNE_OPERATOR_IMAGE"] == "@".join(REFERENCES["operator"])
    assert variables["FINETUNE_TRAINER_IMAGE"] == "@".join(REFERENCES["trainer"])
