"""`make install`: the chart, with the images built from this clone, on the local cluster or the current context."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tools import binaries, context
from tools.console import StepError, exit_on_failure, run_logged, say
from tools.paths import IMAGES_FILE, KUBECONFIG, REPOSITORY, cache

RELEASE = "finetune-operator"
NAMESPACE = "finetune-system"
CHART = REPOSITORY / "charts" / "finetune-operator"
ACCESS = {"KUBECONFIG": str(KUBECONFIG)}


def image_values(references: dict[str, str]) -> list[str]:
    """Helm's options for the two images."""
    values = ["--set=image.pullPolicy=IfNotPresent"]
    for key, name in (("image", "operator"), ("trainerImage", "trainer")):
        repository, _, tag = references[name].rpartition(":")
        values += [f"--set={key}.repository={repository}", f"--set={key}.tag={tag}"]
    return values


def command(helm: Path, references: dict[str, str]) -> list[str]:
    """The Helm command line; CRDs that somebody applied by hand become the release's."""
    argv = [str(helm), "upgrade", "--install", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--create-namespace"]
    return [*argv, *image_values(references), "--take-ownership", "--wait", "--timeout=3m"]


def status_of(helm: Path) -> str:
    """What Helm says of the release: `deployed`, `pending-upgrade`, ...; empty when there is none."""
    argv = [str(helm), "status", RELEASE, f"--namespace={NAMESPACE}", "--output=json", f"--kubeconfig={KUBECONFIG}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return str(json.loads(done.stdout)["info"]["status"]) if done.returncode == 0 else ""


def clear_interrupted(helm: Path) -> None:
    """Helm refuses to touch a release whose last operation was killed: go back to before it."""
    log = cache() / "logs" / "helm.log"
    match status_of(helm):
        case "pending-install":
            argv = [str(helm), "uninstall", RELEASE, f"--namespace={NAMESPACE}"]
        case "pending-upgrade" | "pending-rollback":
            argv = [str(helm), "rollback", RELEASE, f"--namespace={NAMESPACE}"]
        case _:
            return
    run_logged("clearing an interrupted installation", argv, log, env=ACCESS)


def what_pods_say() -> str:
    """The release's pods and the last lines of their logs, for a message about a failed installation."""
    kubectl = [context.kubectl(), f"--kubeconfig={KUBECONFIG}", f"--namespace={NAMESPACE}"]
    questions = (
        ["get", "pods", "--output=wide"],
        ["logs", "--selector=app.kubernetes.io/name=finetune-operator", "--tail=20"],
    )
    answers = [subprocess.run([*kubectl, *words], capture_output=True, text=True, check=False) for words in questions]
    return "\n".join((answer.stdout or answer.stderr).strip() for answer in answers)


def main() -> None:
    """Install or upgrade the release. Raises `StepError`."""
    if not IMAGES_FILE.exists():
        raise StepError(f"{IMAGES_FILE} is missing: `make images` first")
    helm = binaries.ensure("helm")["helm"] / "helm"
    references: dict[str, str] = json.loads(IMAGES_FILE.read_text())
    clear_interrupted(helm)
    try:
        run_logged("installing the chart", command(helm, references), cache() / "logs" / "helm.log", env=ACCESS)
    except StepError as error:
        raise StepError(f"{error}\n{what_pods_say()}") from error
    say(f"release {RELEASE} is installed in namespace {NAMESPACE}")


if __name__ == "__main__":
    exit_on_failure(main)
