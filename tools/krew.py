"""`python -m tools.krew WHEEL DIRECTORY HOMEPAGE DOWNLOADS`: the archive and the manifest that Krew installs from.

HOMEPAGE is the project's page, DOWNLOADS the address under which the archive will be found.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path

from tools.console import StepError, exit_on_failure
from tools.paths import REPOSITORY

SOURCE = REPOSITORY / "packaging" / "krew"


def version_of(wheel: Path) -> str:
    """The version in a wheel's name.

    Raises:
        StepError: it is no wheel of this project.
    """
    parts = wheel.name.split("-")
    if wheel.suffix != ".whl" or parts[0] != "finetune_operator":
        raise StepError(f"{wheel} is no wheel of finetune-operator")
    return parts[1]


def archive(wheel: Path) -> bytes:
    """The program, the wheel and the licence; equal bytes for equal content."""
    program = (SOURCE / "kubectl-finetune").read_text().replace("@VERSION@", version_of(wheel))
    files = {
        "LICENSE": ((REPOSITORY / "LICENSE").read_bytes(), 0o644),
        "kubectl-finetune": (program.replace("@WHEEL@", wheel.name).encode(), 0o755),
        wheel.name: (wheel.read_bytes(), 0o644),
    }
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def manifest(version: str, homepage: str, uri: str, sha256: str) -> str:
    """The plugin manifest for an index of Krew."""
    text = (SOURCE / "finetune.yaml").read_text()
    for mark, word in (("VERSION", version), ("HOMEPAGE", homepage), ("URI", uri), ("SHA256", sha256)):
        text = text.replace(f"@{mark}@", word)
    return text


def main() -> None:
    """Write both."""
    if len(sys.argv) != 5:
        raise SystemExit("usage: python -m tools.krew WHEEL DIRECTORY HOMEPAGE DOWNLOADS")
    wheel, directory, homepage, downloads = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    version, content = version_of(wheel), archive(wheel)
    name = f"kubectl-finetune-{version}.tar.gz"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content)
    uri = f"{downloads.rstrip('/')}/{name}"
    text = manifest(version, homepage, uri, hashlib.sha256(content).hexdigest())
    (directory / "finetune.yaml").write_text(text)


if __name__ == "__main__":
    exit_on_failure(main)
