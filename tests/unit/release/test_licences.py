"""No dependency comes under a licence that is not known or not allowed."""

import tomllib
from email.message import Message

import pytest

from tests.documents import ROOT
from tools import licences


def test_every_dependency_has_an_allowed_licence() -> None:
    found = licences.dependencies()
    assert len(found) > 100
    assert [item for item in found if not licences.is_allowed(item.licence)] == []


def test_the_operators_image_has_no_copyleft_and_nothing_proprietary() -> None:
    strong = {"LGPL-2.1-or-later", "LicenseRef-NVIDIA-Proprietary"}
    assert [item for item in licences.dependencies() if "operator" in item.extras and item.licence in strong] == []


def test_what_is_stated_here_is_still_needed() -> None:
    assert licences.STATED.keys() <= {item.name for item in licences.dependencies()}


def test_the_lock_is_walked_with_extras_of_extras() -> None:
    found = licences.locked(tomllib.loads((ROOT / "uv.lock").read_text()))
    assert found["torch"] == {"trainer"}
    assert "operator" in found["kopf"]
    assert "pytest" not in found


def says(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        pytest.param(says(License_Expression="MIT"), "MIT", id="expression"),
        pytest.param(says(License="Apache 2.0"), "Apache-2.0", id="words"),
        pytest.param(says(License="BSD-3-Clause"), "BSD-3-Clause", id="identifier"),
        pytest.param(says(Classifier="License :: OSI Approved :: MIT License"), "MIT", id="classifier"),
        pytest.param(says(License="All rights reserved"), "", id="not known"),
        pytest.param(says(Classifier="License :: OSI Approved :: GNU General Public License v3 (GPLv3)"), "", id="GPL"),
        pytest.param(says(), "", id="nothing"),
    ],
)
def test_metadata_is_read(metadata: Message, expected: str) -> None:
    assert licences.licence_of("some-package", metadata) == expected


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-2.0-only", True),
        ("MIT AND GPL-3.0-or-later", False),
        ("MPL-2.0 AND MIT", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("AGPL-3.0-only", False),
        ("", False),
    ],
)
def test_expressions_are_judged(expression: str, allowed: bool) -> None:
    assert licences.is_allowed(expression) is allowed
