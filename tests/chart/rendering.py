"""Helm for tests: what the chart renders with which values, and what it says where it refuses."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "finetune-operator"
HELM = shutil.which("helm") or shutil.which("helm", path=str(ROOT / ".local" / "bin"))
NAMESPACE = "finetune-system"
Manifest = dict[str, Any]

needs_helm = pytest.mark.skipif(HELM is None, reason="no helm: `make cluster` builds one")


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=60)


@cache
def try_to_render(*values: str) -> "subprocess.CompletedProcess[str]":
    """`helm template` with values as `path=JSON`."""
    sets = [part for value in values for part in ("--set-json", value)]
    return helm("template", "finetune-operator", str(CHART), "-n", NAMESPACE, "--kube-version", "1.34", *sets)


@cache
def render(*values: str) -> list[Manifest]:
    done = try_to_render(*values)
    assert done.returncode == 0, done.stderr
    # The C loader: Python's own takes a second for the CRDs alone.
    return [manifest for manifest in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if manifest]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in of_kind(manifests, kind) if each["metadata"]["name"] == name]
    return found


def deployment(*values: str) -> Manifest:
    (found,) = of_kind(render(*values), "Deployment")
    return found


def environment(manifest: Manifest) -> dict[str, str]:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", "from the pod") for variable in container["env"]}


def default_values() -> Manifest:
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def schema() -> Manifest:
    return dict(json.loads((CHART / "values.schema.json").read_text()))
