"""`python -m tools.release`: everything of a version in `dist/`; nothing leaves the machine without `--push`.

    make release-dry-run                                     # all but the images: seconds
    make release REGISTRY=registry.example.com/team          # images, and the chart that names them by digest
    make release REGISTRY=registry.example.com/team PUSH=1   # and push all of it

The images lie in `dist/images` in OCI layout and are pushed as they are: the chart's digests are those of the registry.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tarfile
import tempfile
import tomllib
from pathlib import Path

import yaml

from tools import binaries, licences, packages
from tools.console import StepError, exit_on_failure, output_of, run_logged, say
from tools.images import base, buildah, inputs
from tools.paths import REPOSITORY, cache, exclusive
from tools.venv import uv

CHART = REPOSITORY / "charts" / "finetune-operator"
DIST = REPOSITORY / "dist"
IMAGE_VALUES = {"operator": "image", "trainer": "trainerImage"}
"""Where the chart's values name each image."""
SBOM_EXTRAS = {"operator": "operator", "trainer": "trainer", "cli": "cli"}


def version() -> str:
    """The version of the project, which chart and images share. Raises `StepError` where they differ."""
    found = str(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"])
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    others = {"version": chart["version"], "appVersion": chart["appVersion"]}
    if wrong := {name: value for name, value in others.items() if value != found}:
        raise StepError(f"Chart.yaml: {wrong} where pyproject.toml has {found}; set all three to the same")
    return found


def changes(changelog: str, wanted: str) -> str:
    """What the changelog says of a version. Raises `StepError` where that is nothing."""
    found = re.search(rf"^## \[{re.escape(wanted)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise StepError(f"CHANGELOG.md has nothing under [{wanted}]: move what is Unreleased there, with the date")
    return found[1].strip()


def write_sboms(target: Path) -> None:
    """A CycloneDX 1.5 bill of materials of each image and of the CLI, from the lock alone."""
    for name, extra in SBOM_EXTRAS.items():
        options = ["--frozen", "--no-dev", f"--extra={extra}", "--format=cyclonedx1.5", "--quiet"]
        document = output_of([str(uv()), "export", *options, f"--project={REPOSITORY}"])
        (target / f"{name}.cdx.json").write_text(document)


def package_chart(helm: Path, target: Path, references: dict[str, tuple[str, str]]) -> Path:
    """The chart as an archive whose values name images by repository and digest; answers its path.

    Args:
        helm: The program.
        target: The folder to write to.
        references: Of the images, by name: repository and digest. Empty: the chart as it is, with tags.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(CHART, Path(scratch) / CHART.name))
        values = (copy / "values.yaml").read_text()
        for name, (repository, digest) in references.items():
            values = with_image(values, IMAGE_VALUES[name], repository, digest)
        (copy / "values.yaml").write_text(values)
        run_logged("helm lint", [str(helm), "lint", "--strict", str(copy)], cache() / "logs" / "helm-lint.log")
        output_of([str(helm), "package", str(copy), f"--destination={target}"])
    return target / f"{CHART.name}-{version()}.tgz"


def with_image(values: str, key: str, repository: str, digest: str) -> str:
    """The values with another repository and digest of one image, and all comments. Raises `StepError`."""
    pattern = rf'(^{key}:\n(?:  .*\n)*?  repository: )\S+(\n(?:  .*\n)*?  digest: )"[^"]*"'
    changed, times = re.subn(pattern, rf'\g<1>{repository}\g<2>"{digest}"', values, flags=re.MULTILINE)
    if times != 1:
        raise StepError(f"values.yaml: {key}.repository and {key}.digest are not where they are expected")
    return changed


def build_image(image: inputs.Image, layout: Path, tag: str) -> str:
    """Build an image and write it to an OCI layout, compressed; answers its digest there."""
    packages.ensure(packages.IMAGES)
    with exclusive("images"):
        base_name = base.ensure()
        reference = image.reference(REPOSITORY, base.reference())
        if not buildah.exists(reference):
            options = [f"--build-arg=BASE={base_name}", *buildah.access_to_indexes()]
            buildah.build(reference, REPOSITORY / image.dockerfile, REPOSITORY, options)
        root, run = buildah.storage()
        source = f"containers-storage:[overlay@{root}+{run}]{reference}"
        log = cache() / "logs" / "release-image.log"
        target = f"oci:{layout}:{tag}"
        run_logged(f"writing {tag}", ["skopeo", "--insecure-policy", "copy", source, target], log)
    return digest_in(layout, tag)


def digest_in(layout: Path, tag: str) -> str:
    """The digest of an image in an OCI layout. Raises `StepError`."""
    for entry in json.loads((layout / "index.json").read_text())["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            return str(entry["digest"])
    raise StepError(f"{layout} has no image {tag}")


def push(layout: Path, references: dict[str, tuple[str, str]], chart: Path, helm: Path, registry: str) -> None:
    """Everything to the registry, images first: a chart never names what is not there."""
    log = cache() / "logs" / "release-push.log"
    for name, (repository, digest) in references.items():
        tag = f"{name}-{version()}"
        target = f"docker://{repository}:{version()}"
        run_logged(
            f"pushing {target}",
            ["skopeo", "--insecure-policy", "copy", "--preserve-digests", f"oci:{layout}:{tag}", target],
            log,
        )
        say(f"  {repository}@{digest}")
    run_logged("pushing the chart", [str(helm), "push", str(chart), f"oci://{registry}/charts"], log)


def main() -> None:
    """Make a release, or as much of it as is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--registry", help="where images and chart are to be, such as registry.example.com/team")
    parser.add_argument("--image", action="append", choices=sorted(IMAGE_VALUES), help="only this one (for trying out)")
    parser.add_argument("--push", action="store_true")
    chosen = parser.parse_args()
    if chosen.push and (not chosen.registry or chosen.image):
        raise StepError("--push needs --registry, and pushes both images: leave --image out")
    if chosen.push and output_of(["git", "-C", str(REPOSITORY), "status", "--porcelain"]):
        raise StepError("the working tree has changes that no commit has: commit them, or put them aside")

    wanted = version()
    log = (REPOSITORY / "CHANGELOG.md").read_text()
    notes = changes(log, wanted if chosen.push else ("Unreleased" if f"[{wanted}]" not in log else wanted))
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    (DIST / "notes.md").write_text(notes + "\n")
    found = licences.dependencies()
    if wrong := [item.name for item in found if not licences.is_allowed(item.licence)]:
        raise StepError(f"licences that are not allowed: {', '.join(wrong)}; see `python -m tools.licences`")
    (DIST / "licences.md").write_text(licences.report(found))
    write_sboms(DIST)
    with tarfile.open(DIST / f"crds-{wanted}.tar.gz", "w:gz") as archive:
        archive.add(REPOSITORY / "crds", "crds")
    references: dict[str, tuple[str, str]] = {}
    if chosen.registry:
        for image in inputs.ALL:
            if chosen.image is None or image.name in chosen.image:
                digest = build_image(image, DIST / "images", f"{image.name}-{wanted}")
                references[image.name] = (f"{chosen.registry}/{image.repository.rpartition('/')[2]}", digest)
    helm = binaries.ensure("helm")["helm"] / "helm"
    chart = package_chart(helm, DIST, references)
    if chosen.push:
        push(DIST / "images", references, chart, helm, chosen.registry)
    for file in sorted(DIST.iterdir()):
        say(f"  dist/{file.name}")


if __name__ == "__main__":
    exit_on_failure(main)
