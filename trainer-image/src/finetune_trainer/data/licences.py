"""Which licence a mixture is under: the strictest of its parts', and where none is stricter than the others, all."""

from collections.abc import Iterable

UNKNOWN = "NOASSERTION"
"""SPDX's word for a licence that nobody named: no permission is assumed."""

_STRICTNESS = (
    ("-ND", 5),
    ("-NC", 4),
    ("AGPL-", 4),
    ("GPL-", 3),
    ("CDLA-Sharing", 3),
    ("ODbL-", 3),
    ("GFDL-", 3),
    ("-SA", 3),
    ("LGPL-", 3),
    ("MPL-", 2),
    ("CC0-", 0),
    ("PDDL-", 0),
    ("Unlicense", 0),
    ("CC-PDDC", 0),
    ("0BSD", 0),
)
"""A part of the identifier -> how much it asks for: no changes, no trade, the same licence. The first counts."""

_USUAL = 1
"""Attribution and notices: MIT, Apache-2.0, CC-BY-4.0, ODC-By-1.0 and most others."""
_OWN = 6
"""LicenseRef-...: terms of its own, which nobody here has read."""


def strictest(licences: Iterable[str | None]) -> str:
    """The licence of rows that are under several; None is one that nobody named."""
    named = {licence or UNKNOWN for licence in licences}
    # What a mixture in the mixture has joined is one licence each.
    found = sorted({part for licence in named for part in ([licence] if "(" in licence else licence.split(" AND "))})
    if UNKNOWN in found:
        return UNKNOWN
    most = max(map(_strictness, found))
    hardest = [licence for licence in found if _strictness(licence) == most]
    return " AND ".join(f"({licence})" if " OR " in licence else licence for licence in hardest)


def _strictness(licence: str) -> int:
    if licence.startswith("LicenseRef-"):
        return _OWN
    return max(
        next((strictness for part, strictness in _STRICTNESS if part in word), _USUAL)
        for word in licence.split()
        if word not in ("AND", "OR", "WITH")
    )
