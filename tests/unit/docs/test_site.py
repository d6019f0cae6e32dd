"""The documentation site: built with warnings as errors, from nothing outside, and readable as written."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.documents import ROOT

NOT_PROSE = {"code", "pre", "script", "style", "nav", "title", "h1", "h2", "h3", "h4", "h5", "h6"}
OUTSIDE = re.compile(
    r"""(?:src|srcset)=["'](?:https?:)?//|url\(["']?(?:https?:)?//"""
    r"""|<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="(?:https?:)?//"""
)


def build(configuration: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does; no proxy lets it out."""
    nowhere = "http://127.0.0.1:9"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(configuration)]
    return subprocess.run(
        [*command, "-d", str(target)], capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", target)
    assert done.returncode == 0, done.stderr
    return target


class Text(HTMLParser):
    """What a reader sees, without code and headings."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self.inside += tag in NOT_PROSE

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in NOT_PROSE

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.found += data.splitlines()


def test_every_page_is_there(site: Path) -> None:
    written = {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")}
    built = {str(file.parent.relative_to(site)) for file in site.rglob("index.html")}
    assert {re.sub(r"/?(index)?\.md$", "", name) or "." for name in written} == built


def test_pages_load_nothing_from_outside(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert {str(page.relative_to(site)) for page in pages if OUTSIDE.search(page.read_text())} == set()


def test_no_markdown_is_left_over(site: Path) -> None:
    """A list or a block that GitHub understands and this site does not."""
    left = []
    for page in site.rglob("*.html"):
        text = Text()
        text.feed(page.read_text())
        left += [(str(page), line) for line in text.found if re.search(r"^\s*([-*|] |```|\d\. )|\]\(|`|\*\*", line)]
    assert left == []


def page_with(folder: Path, text: str) -> Path:
    """A site of one page (and another one, `other.md`) with the settings of ours; answers its configuration."""
    pages = folder / "docs"
    pages.mkdir()
    (pages / "index.md").write_text(f"# Page\n\n{text}\n")
    (pages / "other.md").write_text("# Other\n")
    settings = (ROOT / "mkdocs.yml").read_text().split("nav:\n  - ")[0].replace("[tools/", f"[{ROOT}/tools/")
    (folder / "mkdocs.yml").write_text(settings + "nav: [index.md, other.md]\n")
    return folder / "mkdocs.yml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[a](nowhere.md)", "nowhere.md", id="dead link"),
        pytest.param("[a](other.md#nowhere)", "nowhere", id="dead anchor"),
        pytest.param("[a](/other.md)", "absolute", id="absolute link"),
        pytest.param("[a](../NOWHERE.md)", "NOWHERE.md", id="dead link to a file of the repository"),
    ],
)
def test_a_dead_link_fails_the_build(tmp_path: Path, text: str, says: str) -> None:
    done = build(page_with(tmp_path, text), tmp_path / "site")
    assert done.returncode != 0
    assert says in done.stderr


def test_a_page_outside_of_the_navigation_fails_the_build(tmp_path: Path) -> None:
    configuration = page_with(tmp_path, "Text.")
    (tmp_path / "docs/lost.md").write_text("# Lost\n")
    done = build(configuration, tmp_path / "site")
    assert done.returncode != 0
    assert "lost.md" in done.stderr


def test_a_link_to_a_file_of_the_repository_becomes_its_path(tmp_path: Path) -> None:
    (tmp_path / "CHANGES.md").write_text("# Changes\n")
    configuration = page_with(tmp_path, "See [the changes](../CHANGES.md#x) and [`CHANGES.md`](../CHANGES.md).")
    done = build(configuration, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "site/index.html").read_text()
    assert "See the changes (<code>CHANGES.md</code>) and <code>CHANGES.md</code>." in text
