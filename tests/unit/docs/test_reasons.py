"""Reasons that the pages on troubles name are ones that the operator gives, and every failure reason is explained."""

import re

import pytest

from finetune_contract.failure import FailureReason
from tests.documents import ROOT

SOURCES = "".join(
    file.read_text() for folder in ("operator/src", "trainer-image/src") for file in (ROOT / folder).rglob("*.py")
)
PAGES = ("docs/operating/troubleshooting.md", "docs/user-guides/failures.md")


def is_given(reason: str) -> bool:
    """As one word, or as one of the forms f"{part}NotFound"."""
    first, *more = re.split(r"(?<=.)(?=[A-Z])", reason)
    rest = "".join(more)
    return f'"{reason}"' in SOURCES or (rest != "" and f'}}{rest}"' in SOURCES and f'"{first}"' in SOURCES)


@pytest.mark.parametrize("page", PAGES)
def test_reasons_in_tables_are_the_operators(page: str) -> None:
    cells = re.findall(r"^\| ((?:`[A-Z][A-Za-z]+`(?:, )?)+) \|", (ROOT / page).read_text(), re.MULTILINE)
    named = {reason for cell in cells for reason in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 5
    assert {reason for reason in named if not is_given(reason)} == set()


def test_every_failure_reason_has_a_line_with_what_to_do() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| ([^|]+) \|$", (ROOT / "docs/reference/failures.md").read_text(), re.MULTILINE
    )
    explained = {reason for reason, remedy in rows if remedy.strip()}
    assert explained >= {reason.value for reason in FailureReason}
