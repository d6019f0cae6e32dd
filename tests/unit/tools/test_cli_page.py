"""The reference page of `kubectl finetune` and its pictures."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools import cli_page
from tools.screenshots.__main__ import PICTURES, picture

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"


def test_every_command_has_a_section_with_its_options() -> None:
    page = cli_page.page()
    for name in cli_page.ORDER:
        assert f"\n## {name}\n" in page
    submit = page.split("\n## submit\n")[1].split("\n## ")[0]
    for option in ("--watch, -w", "--dry-run", "--force-conflicts", "--namespace, -n"):
        assert f"| `{option}` |" in submit
    assert "One of `table`, `wide`, `json`, `yaml`. Default: `table`." in page


def test_every_picture_is_shown_and_every_picture_shown_is_there() -> None:
    shown = set(re.findall(r"\(cli/([a-z-]+)\.svg\)", cli_page.page()))
    assert shown == set(PICTURES) == {file.stem for file in (REFERENCE / "cli").glob("*.svg")}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_the_same_every_time_and_loads_nothing_from_elsewhere(name: str) -> None:
    svg = picture(name)
    assert svg == picture(name) == (REFERENCE / "cli" / f"{name}.svg").read_text()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    # Addresses that are shown are words; those of attributes and styles would be loaded.
    loaded = re.findall(r"""(?:=|url\(|@import)\s*["']?(https?://[^"')\s]+)""", svg)
    assert set(loaded) == {"http://www.w3.org/2000/svg"}
