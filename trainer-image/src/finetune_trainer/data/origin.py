"""The report's section about where rows come from, and under which terms they are."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from finetune_contract.datasets import Teacher
from finetune_trainer.data.html import section, table
from finetune_trainer.data.provenance import PARTS, Terms

_UNKNOWN = "<span class='bad'>not stated</span>"
_MOST = 50


def origin(lineage: Mapping[str, str]) -> str:
    """Source, licence, attribution and teachers; of a mixture each Dataset's."""
    terms = Terms.stored(lineage)
    facts = {
        "source": "a mixture" if PARTS in lineage else f"<code>{escape(lineage.get('source', ''))}</code>",
        "its revision": f"<code>{escape(lineage['sourceRevision'])}</code>" if "sourceRevision" in lineage else "",
        "licence": escape(terms.license) if terms.license else _UNKNOWN,
        "attribution": "; ".join(map(escape, terms.attributions)),
        "written by": "; ".join(map(_model, terms.teachers)),
    }
    body = table(("", ""), [(name, said) for name, said in facts.items() if said], "words")
    parts = json.loads(lineage.get(PARTS, "[]"))
    if parts:
        heads = ("Dataset", "digest", "licence", "attribution", "written by")
        body += table(heads, map(_part, parts[:_MOST]), "words")
    if len(parts) > _MOST:
        body += f"<p class='note'>and {len(parts) - _MOST} more, in the revision's manifest</p>"
    return section("Where the rows come from", body)


def _part(part: dict[str, Any]) -> tuple[str, ...]:
    teacher = Teacher(model=part["teacher"], terms=part.get("teacherTerms")) if "teacher" in part else None
    return (
        escape(part["dataset"]),
        f"<code title='{part['digest']}'>{part['digest'][7:19]}</code>",
        escape(part["license"]) if "license" in part else _UNKNOWN,
        escape(part.get("attribution", "")),
        _model(teacher) if teacher else "",
    )


def _model(teacher: Teacher) -> str:
    return f"{escape(teacher.model)} ({escape(teacher.terms) if teacher.terms else 'terms not stated'})"
