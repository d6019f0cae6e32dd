"""Workflows run what `.ci/run` runs, by targets and files that exist, with no more rights than they need."""

import re
from typing import Any

import pytest
import yaml

from tests.documents import ROOT

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
JOBS = [
    pytest.param(job, id=f"{file.name} {name}")
    for file in FILES
    for name, job in yaml.safe_load(file.read_text())["jobs"].items()
]


def commands(job: dict[str, Any]) -> list[str]:
    return [line.strip() for step in job["steps"] for line in step.get("run", "").splitlines() if line.strip()]


def test_ci_runs_what_the_repository_itself_calls_ci() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert ".ci/run" in commands(jobs["all"])
    assert jobs["all"]["container"]["image"] == "debian:12"
    assert {"kind", "release"} <= jobs.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_workflow_may_read_and_nothing_else(file: Any) -> None:
    document = yaml.safe_load(file.read_text())
    # YAML 1.1 reads the key `on` as true.
    assert set(document) == {"name", True, "permissions", "concurrency", "jobs"}
    assert document["permissions"] == {"contents": "read"}
    assert "secrets." not in file.read_text()


@pytest.mark.parametrize("job", JOBS)
def test_a_job_has_a_limit_and_steps_that_do_one_thing(job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 90
    assert job["runs-on"] == "ubuntu-24.04"
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", step["uses"])


@pytest.mark.parametrize("job", JOBS)
def test_targets_and_files_that_a_job_names_exist(job: dict[str, Any]) -> None:
    top = {item.name for item in ROOT.iterdir() if item.is_dir()}
    for line in commands(job):
        text = line.split("  #")[0]
        if (found := re.search(r"(?:^|\s)make\s+([a-z-]+)", text)) and "apt-get" not in text:
            assert found[1] in TARGETS, text
        for part in text.split():
            if "/" in part and part.split("/")[0] in top:
                assert (ROOT / part).exists(), text


def test_settings_of_jobs_are_read_by_tools() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "tools").rglob("*.py"))
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert 'f"{image.name.upper()}_IMAGE"' in sources
    assert set(jobs["kind"]["env"]) == {"OPERATOR_IMAGE", "TRAINER_IMAGE"}
