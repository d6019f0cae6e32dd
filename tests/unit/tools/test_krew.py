"""The Krew archive and manifest: of the shape that Krew demands, and a program that installs itself once."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from tools import krew
from tools.console import StepError

VERSION = "1.2.3"
HOME, DOWNLOADS = "https://example.com/finetune-operator", "https://example.com/downloads/"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Manifest and archive of a wheel that says what it was asked."""
    wheel = tmp_path / f"finetune_operator-{VERSION}-py3-none-any.whl"
    info = f"finetune_operator-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel, "w") as zipped:
        zipped.writestr("finetune_cli/__init__.py", "")
        zipped.writestr("finetune_cli/__main__.py", "import sys; print('asked', *sys.argv[1:]); sys.exit(3)")
        zipped.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: finetune-operator\nVersion: {VERSION}\nProvides-Extra: cli\n",
        )
        zipped.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        zipped.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(sys, "argv", ["krew", str(wheel), str(tmp_path / "out"), HOME, DOWNLOADS])
    krew.main()
    return tmp_path / "out"


def test_the_manifest_is_what_krew_accepts(made: Path) -> None:
    plugin = yaml.safe_load((made / "finetune.yaml").read_text())
    assert (plugin["apiVersion"], plugin["kind"]) == ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    assert plugin["metadata"] == {"name": "finetune"}
    spec = plugin["spec"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", spec["version"])
    assert spec["homepage"] == HOME
    assert 0 < len(spec["shortDescription"]) <= 50
    assert "\n" not in spec["shortDescription"]
    [platform] = spec["platforms"]
    archive = made / Path(platform["uri"]).name
    assert platform["uri"] == f"{DOWNLOADS}{archive.name}"
    assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    with tarfile.open(archive) as tar:
        entries = {entry.name: entry.mode for entry in tar}
    assert entries[platform["bin"]] == 0o755
    assert "LICENSE" in entries, "Krew's index asks for it"
    assert "@" not in (made / "finetune.yaml").read_text()


def test_the_archive_is_the_same_for_the_same_wheel(made: Path) -> None:
    wheel = next(made.parent.glob("*.whl"))
    assert krew.archive(wheel) == krew.archive(wheel) == next(made.glob("*.tar.gz")).read_bytes()


def call(made: Path, *arguments: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    folder = made / "installed"
    with tarfile.open(next(made.glob("*.tar.gz"))) as tar:
        tar.extractall(folder, filter="data")
    (made / "bin").mkdir(exist_ok=True)
    link = made / "bin" / "kubectl-finetune"
    link.unlink(missing_ok=True)
    # As Krew does: a link on the PATH.
    link.symlink_to(folder / "kubectl-finetune")
    environment = {**os.environ, "XDG_CACHE_HOME": str(made / "cache"), "PIP_NO_INDEX": "1"}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run([link, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_the_program_installs_itself_once_and_passes_on_words_and_exit_code(made: Path) -> None:
    first, second = call(made, "status", "a b"), call(made, "watch", "x")
    assert (first.returncode, first.stdout) == (3, "asked status a b\n"), first.stderr
    assert first.stderr.startswith(f"installing kubectl finetune {VERSION} into ")
    assert (second.returncode, second.stdout, second.stderr) == (3, "asked watch x\n", "")
    assert [one.name for one in (made / "cache" / "kubectl-finetune").iterdir()] == [VERSION]


def test_without_python_it_says_what_is_missing(made: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "readlink"):
        (tools / name).symlink_to(Path("/usr/bin") / name)
    done = call(made, "status", path=str(tools))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: kubectl finetune needs python3 3.11 or newer, with venv; install it and try again\n"


def test_a_file_that_is_no_wheel_of_ours() -> None:
    with pytest.raises(StepError, match="is no wheel of finetune-operator"):
        krew.version_of(Path("other-1.0.whl"))
