"""CHANGELOG.md keeps to Keep a Changelog, so that a release can take its notes from it."""

import re

import pytest

from tests.documents import ROOT
from tools.console import StepError
from tools.release import changes, version

TEXT = (ROOT / "CHANGELOG.md").read_text()
GROUPS = ["Changed", "Added", "Deprecated", "Removed", "Fixed", "Security"]
"""What may need something done before an upgrade comes first."""
LONGEST = 600
"""Characters of an entry: more is a guide."""


def test_sections_are_unreleased_and_then_versions_with_dates_newest_first() -> None:
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert titles[0] == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", title) for title in titles[1:]]
    assert all(versions)
    numbers = [tuple(map(int, found.groups()[:3])) for found in versions if found]
    assert numbers == sorted(numbers, reverse=True)
    assert all(number <= tuple(map(int, version().split("."))) for number in numbers)


def test_groups_are_known_in_order_and_not_twice() -> None:
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        groups = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert set(groups) <= set(GROUPS)
        assert groups == sorted(set(groups), key=GROUPS.index)


def test_everything_in_a_section_is_an_entry_that_ends_in_a_full_stop() -> None:
    for section in re.split(r"^### .*$", TEXT, flags=re.MULTILINE)[1:]:
        body = section.split("\n## ")[0].strip()
        entries = re.split(r"^- ", body, flags=re.MULTILINE)
        assert entries[0] == "", entries[0]
        for entry in entries[1:]:
            assert entry.strip().endswith("."), entry
            assert len(entry) <= LONGEST, entry


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("## [Unreleased]\n\n### Added\n\n- A.\n", "- A.", id="unreleased"),
        pytest.param(
            "## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n- B.\n\n## [0.1.0] - 2026-11-01\n\n- C.\n", None, id="none"
        ),
        pytest.param("# Changelog\n", None, id="nothing"),
    ],
)
def test_notes_are_what_the_section_has(text: str, says: str | None) -> None:
    if says is None:
        with pytest.raises(StepError, match="nothing under"):
            changes(text, "Unreleased")
    else:
        assert says in changes(text, "Unreleased")


def test_notes_end_where_the_next_version_begins() -> None:
    text = "## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n- B.\n\n## [0.1.0] - 2026-11-01\n\n- C.\n"
    assert changes(text, "0.2.0") == "- B."
