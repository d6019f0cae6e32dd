"""A release: one version everywhere, digests in the chart, a bill of materials of the whole lock."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.documents import ROOT
from tools import licences, release
from tools.console import StepError

VALUES = (ROOT / "charts/finetune-operator/values.yaml").read_text()
DIGEST = "sha256:" + "5" * 64


def test_project_and_chart_have_one_version() -> None:
    assert release.version() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_a_chart_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Chart.yaml").write_text("version: 9.9.9\nappVersion: '9.9.9'\n")
    monkeypatch.setattr(release, "CHART", tmp_path)
    with pytest.raises(StepError, match=r"9\.9\.9"):
        release.version()


@pytest.mark.parametrize("name", release.IMAGE_VALUES)
def test_an_image_is_named_by_digest_and_nothing_else_changes(name: str) -> None:
    key = release.IMAGE_VALUES[name]
    changed = release.with_image(VALUES, key, f"registry.example.com/team/{name}", DIGEST)
    before, after = yaml.safe_load(VALUES), yaml.safe_load(changed)
    assert after[key]["repository"] == f"registry.example.com/team/{name}"
    assert after[key]["digest"] == DIGEST
    after[key] |= {field: before[key][field] for field in ("repository", "digest")}
    assert after == before
    assert changed.count("#") == VALUES.count("#")
    jsonschema.validate(
        yaml.safe_load(changed), json.loads((ROOT / "charts/finetune-operator/values.schema.json").read_text())
    )


def test_values_that_look_otherwise_are_refused() -> None:
    with pytest.raises(StepError, match=r"image\.repository"):
        release.with_image("other: 1\n", "image", "r", DIGEST)


def test_bills_of_materials_have_every_package_of_the_lock(tmp_path: Path) -> None:
    release.write_sboms(tmp_path)
    wanted = licences.locked(tomllib.loads((ROOT / "uv.lock").read_text()))
    for name, extra in release.SBOM_EXTRAS.items():
        document = json.loads((tmp_path / f"{name}.cdx.json").read_text())
        assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
        written = {item["name"] for item in document["components"]}
        assert {package for package, extras in wanted.items() if extras & {extra, "contract"}} <= written
        assert all(item["purl"].startswith("pkg:pypi/") for item in document["components"])


def test_the_digest_is_the_layouts(tmp_path: Path) -> None:
    entry = {"digest": DIGEST, "annotations": {"org.opencontainers.image.ref.name": "operator-1.0.0"}}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [entry]}))
    assert release.digest_in(tmp_path, "operator-1.0.0") == DIGEST
    with pytest.raises(StepError, match="no image trainer"):
        release.digest_in(tmp_path, "trainer-1.0.0")
