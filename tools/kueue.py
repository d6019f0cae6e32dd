"""`make kueue`: Kueue on the local cluster, its manager and its chart both from the Go module that go.sum pins."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tools import binaries, context
from tools.cluster import containers, tiny_images
from tools.cluster.settings import layout
from tools.console import exit_on_failure, output_of, run_logged, say
from tools.paths import KUBECONFIG, cache
from tools.toolchain import GO_MODULES, go

MODULE = "sigs.k8s.io/kueue"
REPOSITORY = "localhost/finetune-kueue"
NAMESPACE = "kueue-system"


def module_folder() -> Path:
    """Where Go keeps the module's source, with its chart."""
    path = f"{go().parent}:{os.environ.get('PATH', '')}"
    answer = output_of(
        [str(go()), "-C", str(GO_MODULES / "kueue"), "mod", "download", "-json", MODULE], env={"PATH": path}
    )
    return Path(json.loads(answer)["Dir"])


def image_archive(manager: bytes, reference: str) -> bytes:
    """An image of the static manager alone, where the chart expects it."""
    layer = tiny_images.archive([tiny_images.entry("manager", manager, mode=0o755)])
    return tiny_images.image_archive(layer, {reference: {"Entrypoint": ["/manager"], "User": "65532:65532"}})


def main() -> None:
    """Load the image and install the chart. Raises `StepError`."""
    if context.is_current():
        say("CLUSTER=current: Kueue is used as that cluster has it")
        return
    folder = binaries.ensure("kueue", "helm")
    tag = folder["kueue"].name.rpartition("-")[2]
    reference = f"{REPOSITORY}:{tag}"
    if reference not in containers.images(layout()):
        containers.load_archive(layout(), image_archive((folder["kueue"] / "kueue").read_bytes(), reference))
    argv = [str(folder["helm"] / "helm"), "upgrade", "--install", "kueue", str(module_folder() / "charts" / "kueue")]
    argv += [f"--namespace={NAMESPACE}", "--create-namespace", "--wait", "--timeout=3m"]
    argv += [f"--set=controllerManager.manager.image.{key}" for key in (f"repository={REPOSITORY}", f"tag={tag}")]
    argv += ["--set=controllerManager.manager.image.pullPolicy=IfNotPresent"]
    # Two cores are the machine's all: a manager that reserves half of one would leave tests waiting.
    argv += ["--set=controllerManager.manager.resources.requests.cpu=50m"]
    run_logged("installing Kueue", argv, cache() / "logs" / "helm-kueue.log", env={"KUBECONFIG": str(KUBECONFIG)})
    say(f"Kueue is installed in namespace {NAMESPACE}")


if __name__ == "__main__":
    exit_on_failure(main)
