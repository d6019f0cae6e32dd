"""What decides that something is built again: programs, images, the development environment."""

import json
import re
from pathlib import Path

import pytest

from tools import binaries, fingerprint, toolchain, venv
from tools.images import forget, inputs
from tools.paths import REPOSITORY, cache


def test_texts_are_told_apart_also_by_where_they_end() -> None:
    assert fingerprint.of_texts("ab", "c") != fingerprint.of_texts("a", "bc")
    assert fingerprint.of_texts("ab", "c") == fingerprint.of_texts("ab", "c")


def test_files_count_by_name_and_content_and_not_by_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    before = fingerprint.of_files(tmp_path, [one, two])
    assert fingerprint.of_files(tmp_path, [two, one]) == before
    one.write_text("2")
    two.write_text("1")
    assert fingerprint.of_files(tmp_path, [one, two]) != before


@pytest.mark.parametrize(
    ("text", "version"),
    [
        pytest.param("go version go1.26.8 linux/amd64", (1, 26, 8), id="go version"),
        pytest.param("go 1.25.0", (1, 25, 0), id="line of go.mod"),
        pytest.param("command not found", (), id="no Go"),
    ],
)
def test_go_version(text: str, version: tuple[int, ...]) -> None:
    assert toolchain.version(text) == version


def test_an_older_go_is_older() -> None:
    assert toolchain.version("go version go1.19.8 linux/amd64") < toolchain.required_version()
    assert toolchain.version("") < toolchain.required_version()


def test_every_tool_module_is_built_by_some_target() -> None:
    modules = {file.parent.name for file in toolchain.GO_MODULES.glob("*/go.mod")}
    assert modules == {*binaries.FOR_CLUSTER, *binaries.FOR_LATER}


def test_only_kubernetes_needs_its_version_stamped() -> None:
    assert f"version.gitVersion={binaries.KUBERNETES_VERSION} " in binaries.linker_flags("kubernetes")
    assert binaries.linker_flags("helm") == "-s -w"


def test_programs_are_built_again_when_their_flags_change(monkeypatch: pytest.MonkeyPatch) -> None:
    before = binaries.folder_of("kubernetes")
    monkeypatch.setattr(binaries, "KUBERNETES_VERSION", "v1.99.0")
    assert binaries.folder_of("kubernetes") != before


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FINETUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache() == tmp_path / "xdg" / "finetune-operator"
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "own"))
    assert cache() == tmp_path / "own"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("operator/src/package/code.py", "trainer-image/src/package/code.py", *inputs.CONTEXT_FILES):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    for image in inputs.ALL:
        (tmp_path / image.dockerfile).write_text("FROM base")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        pytest.param("operator/src/package/code.py", True, id="source"),
        pytest.param("uv.lock", True, id="lock"),
        pytest.param("operator/Dockerfile", True, id="its Dockerfile"),
        pytest.param("trainer-image/Dockerfile", False, id="the other image's Dockerfile"),
        pytest.param("operator/src/package/__pycache__/code.pyc", False, id="byte code"),
        pytest.param("docs/page.md", False, id="documentation"),
    ],
)
def test_an_image_is_built_again_when_its_inputs_change(repository: Path, file: str, changes: bool) -> None:
    before = inputs.OPERATOR.reference(repository, "base:1")
    changed = repository / file
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text("changed")
    assert (inputs.OPERATOR.reference(repository, "base:1") != before) is changes


def test_an_image_is_built_again_on_another_base(repository: Path) -> None:
    assert inputs.OPERATOR.reference(repository, "base:1") != inputs.OPERATOR.reference(repository, "base:2")


def test_the_build_context_is_what_is_hashed() -> None:
    let_through = re.findall(r"^!(\S+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    assert {*let_through, ".dockerignore"} == {*inputs.CONTEXT_FILES, *inputs.CONTEXT_FOLDERS}


def layers(tag: str, dependencies: str) -> dict[str, int]:
    """An image like the trainer's: gigabytes of dependencies, megabytes of its own."""
    return {"base": 400 * 10**6, f"dependencies {dependencies}": 6 * 10**9, f"project {tag}": 6 * 10**6}


@pytest.mark.parametrize(
    ("images", "kept", "kept_when_full"),
    [
        pytest.param([], "", "", id="none"),
        pytest.param(["a1", "b1", "c1"], "abc", "abc", id="all share their dependencies"),
        pytest.param(["a1", "b2", "c3", "d3"], "bcd", "cd", id="the oldest dependencies go"),
        pytest.param(["a1", "b2", "c1", "d3"], "cd", "d", id="dependencies that came back"),
    ],
)
def test_which_images_are_kept(images: list[str], kept: str, kept_when_full: str) -> None:
    found = [(image[0], layers(image[0], image[1])) for image in images]
    assert forget.newest(found, forget.spare(forget.ROOM)) == set(kept)
    assert forget.newest(found, forget.spare(forget.ROOM - 1)) == set(kept_when_full)


def test_not_every_image_is_kept() -> None:
    images = [(str(number), layers(str(number), "1")) for number in range(forget.KEEP + 5)]
    assert forget.newest(images, forget.SPARE) == {str(number) for number in range(5, forget.KEEP + 5)}


def test_many_small_layers_are_too_many_bytes_together() -> None:
    images = [(str(number), {f"project {number}": 300 * 10**6}) for number in range(10)]
    assert forget.newest(images, 10**9) == {"6", "7", "8", "9"}


def test_layers_are_read_from_the_layout(tmp_path: Path) -> None:
    digest = "sha256:" + "1" * 64
    manifest = {"layers": [{"digest": "sha256:a", "size": 5}, {"digest": "sha256:b", "size": 7}]}
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    (tmp_path / "blobs/sha256" / ("1" * 64)).write_text(json.dumps(manifest))
    assert forget.layers_of(tmp_path, {"digest": digest}) == {"sha256:a": 5, "sha256:b": 7}


@pytest.mark.parametrize("image", inputs.ALL, ids=lambda image: image.name)
def test_images_and_developers_use_the_same_uv(image: inputs.Image) -> None:
    assert f"ARG UV_VERSION={venv.UV_VERSION}\n" in (REPOSITORY / image.dockerfile).read_text()


def test_uv_version() -> None:
    assert venv.version("uv 0.13.8 (x86_64-unknown-linux-gnu)") == (0, 13, 8)
    assert venv.version("something else") == ()
