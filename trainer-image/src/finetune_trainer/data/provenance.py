"""Whose rows they are and what they may be used for: of one source, or of all that a mixture is made of, at any depth.

It stands in a revision's manifest: `license`, `attribution`, `teacher` and `teacherTerms` are for people, of a mixture
joined; `parts` has each Dataset below a mixture (`b/a` is a part of part b) and `teachers` each model with its terms.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from finetune_contract.datasets import MOST_TEACHERS, MixturePart, Teacher
from finetune_trainer.data.licences import UNKNOWN, strictest

PARTS = "parts"
_TEACHERS = "teachers"
_JOINT = "; "
_OF_A_PART = ("source", "sourceRevision", "license", "attribution", "teacher", "teacherTerms")

_MOST_PARTS = 1000
"""Datasets below a mixture that its manifest lists; a manifest is read whole."""
_SHORT = 128
"""Characters of a licence and of a teacher's name and terms in a result, which has to fit a termination message."""
_ATTRIBUTION = 512
_MORE = "..."


@dataclass(frozen=True)
class Terms:
    """What is asked of those who use rows."""

    license: str | None = None
    attributions: tuple[str, ...] = ()
    teachers: tuple[Teacher, ...] = ()

    @classmethod
    def said(cls, license_: str | None, attribution: str | None, teachers: Iterable[Teacher | None]) -> Self:
        """What a plan says."""
        return cls(license_, _each(attribution), tuple(teacher for teacher in teachers if teacher))

    @classmethod
    def stored(cls, lineage: Mapping[str, str]) -> Self:
        """What a revision's manifest says."""
        listed = [Teacher.model_validate(entry) for entry in json.loads(lineage.get(_TEACHERS, "[]"))]
        if not listed and "teacher" in lineage:
            listed = [Teacher(model=lineage["teacher"], terms=lineage.get("teacherTerms"))]
        return cls(lineage.get("license"), _each(lineage.get("attribution")), tuple(listed))

    def shown_license(self) -> str | None:
        """SPDX expression, as a result says it; one that is too long to say allows nothing."""
        return self.license if self.license is None or len(self.license) <= _SHORT else UNKNOWN

    def shown_attribution(self) -> str | None:
        """Whom to name, as a result says it."""
        text = _JOINT.join(self.attributions)
        if len(text) > _ATTRIBUTION:
            whole = text[: _ATTRIBUTION - len(_JOINT) - len(_MORE)].rpartition(_JOINT)[0]
            text = f"{whole}{_JOINT}{_MORE}" if whole else _MORE
        return text or None

    def shown_teachers(self) -> tuple[Teacher, ...]:
        """The models, as a result names them."""
        return tuple(
            Teacher(model=teacher.model[:_SHORT], terms=teacher.terms[:_SHORT] if teacher.terms else None)
            for teacher in self.teachers[:MOST_TEACHERS]
        )

    def lineage(self) -> dict[str, str]:
        """As a manifest has them; of several teachers each is listed with its terms, too."""
        facts = {
            "license": self.license,
            "attribution": _JOINT.join(self.attributions),
            "teacher": _JOINT.join(dict.fromkeys(teacher.model for teacher in self.teachers)),
            "teacherTerms": _JOINT.join(dict.fromkeys(teacher.terms for teacher in self.teachers if teacher.terms)),
            _TEACHERS: _json([teacher.model_dump(exclude_none=True) for teacher in self.teachers])
            if len(self.teachers) > 1
            else None,
        }
        return {name: value for name, value in facts.items() if value}


def terms_of(part: MixturePart, lineage: Mapping[str, str]) -> Terms:
    """A part's: its Dataset's word goes before the manifest's, which equal rows of another Dataset may have brought.

    What a mixture has inherited is in both, in full only in the manifest.
    """
    said, stored = Terms.said(part.license, part.attribution, part.teachers), Terms.stored(lineage)
    if PARTS not in lineage:
        return Terms(
            said.license or stored.license,
            said.attributions or stored.attributions,
            said.teachers or stored.teachers,
        )
    return Terms(
        said.license or stored.license,
        _united(stored.attributions, (text for text in said.attributions if text != _MORE)),
        _teachers_of([stored.teachers, said.teachers]),
    )


def inherited(parts: Mapping[str, Terms], own: Terms) -> Terms:
    """A mixture's terms: the strictest licence, everybody to name and every teacher."""
    licences = [terms.license for terms in parts.values()]
    everybody = [own, *parts.values()]
    return Terms(
        strictest([*licences, own.license] if own.license else licences),
        _united(*(terms.attributions for terms in everybody)),
        _teachers_of([terms.teachers for terms in everybody]),
    )


def mixture_lineage(
    parts: Iterable[MixturePart], terms: Mapping[str, Terms], lineages: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """What a mixture's manifest says of its parts."""
    listed: list[dict[str, Any]] = []
    for part in parts:
        lineage = {**lineages[part.name], **terms[part.name].lineage()}
        facts = {key: lineage[key] for key in _OF_A_PART if lineage.get(key)}
        listed.append({"dataset": part.name, "digest": part.revision.digest, **facts})
        below = json.loads(lineage.get(PARTS, "[]"))
        listed += [{**entry, "dataset": f"{part.name}/{entry['dataset']}"} for entry in below]
    licences = _JOINT.join(f"{entry['dataset']}: {entry.get('license', UNKNOWN)}" for entry in listed[:_MOST_PARTS])
    return {"licenses": licences, PARTS: _json(listed[:_MOST_PARTS])}


def _teachers_of(groups: Iterable[Iterable[Teacher]]) -> tuple[Teacher, ...]:
    """Each once; one that a result has shortened is one that is there already."""
    found: list[Teacher] = []
    for group in groups:
        found += [teacher for teacher in group if not any(_is_shortened(teacher, other) for other in found)]
    return tuple(found)


def _is_shortened(teacher: Teacher, whole: Teacher) -> bool:
    def is_same(short: str, full: str) -> bool:
        return short == full or (len(short) == _SHORT and full.startswith(short))

    return is_same(teacher.model, whole.model) and is_same(teacher.terms or "", whole.terms or "")


def _each(joined: str | None) -> tuple[str, ...]:
    return tuple(text for text in (joined or "").split(_JOINT) if text)


def _united(*groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for group in groups for text in group))


def _json(value: Any) -> str:  # noqa: ANN401 - JSON
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
