"""Licences, attributions and teachers of mixtures, at any depth."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.datasets import MixturePart, Teacher
from finetune_contract.methods import Method
from finetune_contract.results import ArtifactType
from finetune_contract.training import Hyperparameters, TrainingPlan
from finetune_store.manifests import read_manifest
from finetune_trainer.data.licences import strictest
from finetune_trainer.export.card import Subject, model_card
from tests.unit.data.conftest import Pod, make_text, mix, part

TEXTS = [{"text": make_text(number)} for number in range(40)]


def test_a_mixture_inherits_licence_attribution_and_teacher(pod: Pod) -> None:
    parts = (
        part(pod, "a", TEXTS[:10], license="MIT", attribution="A"),
        part(pod, "b", TEXTS[10:], license="CC-BY-NC-4.0", attribution="B", teacher=Teacher(model="m", terms="t")),
    )
    result = mix(pod, *parts, license="Apache-2.0")
    lineage = read_manifest(pod.path(result)).lineage
    assert result.license == lineage["license"] == "CC-BY-NC-4.0"
    assert lineage["licenses"] == "a: MIT; b: CC-BY-NC-4.0"
    assert (lineage["attribution"], lineage["teacher"], lineage["teacherTerms"]) == ("A; B", "m", "t")
    assert all(part.revision.digest in lineage["source"] for part in parts)
    # Equal rows were stored before under another licence: the Dataset's word counts.
    said = parts[0].model_copy(update={"license": "CC-BY-ND-4.0", "teachers": (Teacher(model="n"),)})
    again = mix(pod, said, parts[1])
    assert again.license == "CC-BY-ND-4.0"
    assert [teacher.model for teacher in again.teachers] == ["n", "m"]


def test_a_mixture_of_mixtures_forgets_nobody(pod: Pod) -> None:
    first = part(pod, "a", TEXTS[:10], license="MIT", attribution="A", teacher=Teacher(model="m", terms="t"))
    second = part(pod, "b", TEXTS[10:20], license="CC-BY-NC-4.0", teacher=Teacher(model="n", terms="u"))
    inner = mix(pod, first, second, license="Apache-2.0", attribution="Inner")
    assert (inner.attribution, inner.parts[1].digest) == ("Inner; A", second.revision.digest)
    assert inner.revision is not None
    # As the operator hands it on: what the inner mixture's status says.
    whole = MixturePart(
        name="inner", revision=inner.revision, license=inner.license, attribution="Inner; ...", teachers=inner.teachers
    )
    third = part(pod, "c", TEXTS[20:], license="MIT", attribution="C", teacher=Teacher(model="m", terms="other"))
    outer = mix(pod, whole, third)
    assert (outer.license, outer.attribution) == ("CC-BY-NC-4.0", "Inner; A; C")
    teachers = [Teacher(model="m", terms="t"), Teacher(model="n", terms="u"), Teacher(model="m", terms="other")]
    assert list(outer.teachers) == teachers
    lineage = read_manifest(pod.path(outer)).lineage
    assert [Teacher.model_validate(teacher) for teacher in json.loads(lineage["teachers"])] == teachers
    listed = {entry["dataset"]: entry for entry in json.loads(lineage["parts"])}
    assert list(listed) == ["inner", "inner/a", "inner/b", "c"]
    assert listed["inner/b"]["digest"] == second.revision.digest
    assert listed["inner/a"]["sourceRevision"].startswith("sha256:")
    assert (listed["inner/a"]["license"], listed["inner/b"]["teacherTerms"]) == ("MIT", "u")
    assert lineage["licenses"] == "inner: CC-BY-NC-4.0; inner/a: MIT; inner/b: CC-BY-NC-4.0; c: MIT"


def test_a_licence_that_is_too_long_to_say_allows_nothing(pod: Pod) -> None:
    parts = [
        part(pod, f"part-{at}", [{"text": make_text(at)}], license=f"LicenseRef-{'Long' * 10}-{at}") for at in range(4)
    ]
    result = mix(pod, *parts)
    assert result.license == "NOASSERTION"
    assert read_manifest(pod.path(result)).lineage["license"].count(" AND ") == 3


def test_long_terms_of_many_parts_fit_a_message_and_stand_in_the_manifest_whole(pod: Pod) -> None:
    chance = random.Random(0)

    def word(length: int) -> str:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))

    parts = []
    for number in range(16):
        teacher = Teacher(model=word(256), terms=word(1024))
        name, row = word(63), {"text": make_text(number)}
        parts.append(part(pod, name, [row], license="MIT", attribution=word(1024), teacher=teacher))
    result = mix(pod, *parts)
    assert (len(result.parts), len(result.teachers), result.attribution) == (16, 8, "...")
    lineage = read_manifest(pod.path(result)).lineage
    assert len(json.loads(lineage["teachers"])) == 16
    assert len(lineage["attribution"].split("; ")) == 16
    assert result.revision is not None
    outer = mix(pod, MixturePart(name="all", revision=result.revision, teachers=result.teachers, attribution="..."))
    again = read_manifest(pod.path(outer)).lineage
    assert (again["teachers"], again["attribution"]) == (lineage["teachers"], lineage["attribution"])


def test_the_model_card_names_every_part_and_every_teacher(pod: Pod) -> None:
    inner = part(pod, "a", TEXTS[:10], license="MIT", attribution="A | B", teacher=Teacher(model="m", terms="t"))
    rest = [part(pod, name, TEXTS[at : at + 10], license="CC0-1.0") for name, at in (("b", 10), ("c", 20))]
    mixed = mix(pod, inner, rest[0], license="CC-BY-4.0", attribution="Outer", teacher=Teacher(model="n"))
    assert mixed.revision is not None
    outer = mix(pod, MixturePart(name="inner", revision=mixed.revision), rest[1])
    plan = TrainingPlan(
        name="triage",
        namespace="team-a",
        run_key="1" * 64,
        attempt=1,
        method=Method.SFT,
        hyperparameters=Hyperparameters(epochs=1, learning_rate=0.001, global_batch_size=8),
        base=mixed.revision,
        dataset=mixed.revision,
        claim="artifacts",
    )
    lineage = read_manifest(pod.path(outer)).lineage
    card = model_card(Subject(plan, ArtifactType.MODEL, (), 1.0, 0.0, None, base={}, dataset=lineage))
    assert "| dataset attribution | Outer; A \\| B |" in card
    assert "| models that wrote rows | `n` (terms not stated); `m` (t) |" in card
    assert f"| inner/a | {inner.revision.digest} | inline | MIT | A \\| B |" in card
    assert f"| inner | {mixed.revision.digest} | a mixture | CC-BY-4.0 AND MIT | Outer; A \\| B |" in card


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["MIT", "MIT"], "MIT"),
        (["CC0-1.0", "MIT"], "MIT"),
        (["MIT", "Apache-2.0"], "Apache-2.0 AND MIT"),
        (["CC-BY-4.0", "CC-BY-SA-4.0", "MIT"], "CC-BY-SA-4.0"),
        (["CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"], "CC-BY-NC-SA-4.0"),
        (["CC-BY-NC-ND-4.0", "GPL-3.0-only"], "CC-BY-NC-ND-4.0"),
        (["LicenseRef-Ours", "MIT"], "LicenseRef-Ours"),
        (["MIT", None], "NOASSERTION"),
        (["Apache-2.0 AND MIT", "MIT", "ISC"], "Apache-2.0 AND ISC AND MIT"),
    ],
    ids=str,
)
def test_the_strictest_licence_counts(licences: list[str | None], expected: str) -> None:
    assert strictest(licences) == expected


@given(st.permutations(["MIT", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC0-1.0"]))
def test_the_order_of_licences_does_not_matter(licences: list[str]) -> None:
    assert strictest(licences) == "CC-BY-NC-4.0"
    assert strictest([strictest(licences[:2]), strictest(licences[2:])]) == "CC-BY-NC-4.0"
