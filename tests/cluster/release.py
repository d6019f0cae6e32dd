"""The Helm release on the local cluster: upgraded, removed and put back as it was, with the values it has."""

import json
import os
import subprocess
from pathlib import Path

import yaml

from tests.cluster.kube import BIN, KUBECONFIG, ROOT, Object

RELEASE, NAMESPACE = "finetune-operator", "finetune-system"
CHART = ROOT / "charts" / "finetune-operator"


def helm(*arguments: str | Path) -> str:
    """Standard output; AssertionError with what Helm says instead."""
    environment = {**os.environ, "KUBECONFIG": str(KUBECONFIG), "PATH": f"{BIN}:{os.environ['PATH']}"}
    argv = ["helm", "--namespace", NAMESPACE, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def package(folder: Path, version: str) -> Path:
    """This chart as one of another version, which is what the labels of its objects say."""
    helm("package", CHART, "--version", version, "--app-version", version, "--destination", folder)
    return folder / f"{RELEASE}-{version}.tgz"


def values() -> str:
    """What the release was installed with, as JSON, which is YAML, too."""
    return helm("get", "values", RELEASE, "--output", "json")


def install(chart: Path, with_values: str, folder: Path) -> None:
    """Install or upgrade, and wait until the operator is ready."""
    file = folder / "values.json"
    file.write_text(with_values)
    helm("upgrade", "--install", RELEASE, chart, "--values", file, "--wait", "--timeout", "3m")


def uninstall() -> None:
    """Remove the release, and wait until what belonged to it is gone."""
    helm("uninstall", RELEASE, "--wait", "--timeout", "2m")


def chart_version() -> str:
    """Of what is installed."""
    (release,) = json.loads(helm("list", "--filter", f"^{RELEASE}$", "--output", "json"))
    return str(release["chart"]).removeprefix(f"{RELEASE}-")


def rendered(*sets: str) -> list[Object]:
    """The chart's manifests with values as `path=JSON`."""
    options = [part for value in sets for part in ("--set-json", value)]
    text = helm("template", RELEASE, CHART, "--kube-version", "1.34", *options)
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]
