"""The generated CustomResourceDefinitions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, StringConstraints, create_model

from finetune_operator.api.base import ApiModel, Word
from finetune_operator.api.crd import RESOURCES, NotStructuralError, crd, main, render, structural

ROOT = Path(__file__).parents[3]
KINDS = [pytest.param(crd(*entry), id=entry[1].kind) for entry in RESOURCES]


@pytest.mark.parametrize("folder", ["crds", "charts/finetune-operator/files/crds"])
def test_the_files_are_what_the_models_say(folder: str) -> None:
    """Run `make generate` and commit what it changes."""
    assert {path.name: path.read_text() for path in (ROOT / folder).glob("*.yaml")} == render()


def test_the_command_writes_every_kind(tmp_path: Path) -> None:
    main([str(tmp_path / "new")])
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == render()


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from nodes(schema[name], f"{path}[]")


def schema_of(document: dict[str, Any]) -> dict[str, Any]:
    return dict(document["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("document", KINDS)
def test_everything_is_typed_bounded_and_described(document: dict[str, Any]) -> None:
    for part in ("spec", "status"):
        for path, node in nodes(schema_of(document)["properties"][part], part):
            if node.get("x-kubernetes-int-or-string"):
                continue
            kind = node["type"]
            assert kind != "string" or {"maxLength", "enum", "format"} & node.keys(), path
            assert kind != "array" or "maxItems" in node, path
            assert "additionalProperties" not in node or "maxProperties" in node, path
            assert "description" in node or path.endswith("[]"), path
            assert not {"$ref", "anyOf", "oneOf", "title", "const"} & node.keys(), path


@pytest.mark.parametrize("document", KINDS)
def test_a_status_that_is_lost_is_not_defaulted(document: dict[str, Any]) -> None:
    schema = schema_of(document)
    assert "default" not in schema["properties"]["status"]
    assert schema["required"] == ["spec"]
    assert document["spec"]["versions"][0]["subresources"]["status"] == {}


SAID = "What the field is for."


def schema_for(annotation: Any) -> dict[str, Any]:
    model = create_model("Model", __base__=ApiModel, field=(annotation, Field(description=SAID)))
    document = model.model_json_schema(by_alias=True)
    return structural(document, document.get("$defs", {}), "Model")


class Free(ApiModel):
    name: Word
    """A name."""


class Other(ApiModel):
    age: int
    """An age."""


def as_one_of(schema: dict[str, Any]) -> None:
    schema["oneOf"] = schema.pop("anyOf")


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        pytest.param(str, "a string needs maxLength", id="unbounded string"),
        pytest.param(list[Word], "a list needs maxItems", id="unbounded list"),
        pytest.param(dict[str, Word], "a map needs maxProperties", id="unbounded map"),
        pytest.param(dict[str, Any], "Model.field: ", id="free-form object"),
        pytest.param(int | str, "a union of 2 types cannot be said", id="union"),
        pytest.param(Annotated[Free | Other, Field(json_schema_extra=as_one_of)], "unions cannot be said", id="oneOf"),
        pytest.param(Free | int, "a union of 2 types cannot be said", id="union with a model"),
        pytest.param(Any, "no type", id="anything"),
        pytest.param(Annotated[int, Field(multiple_of=2)], "multipleOf would be lost", id="multipleOf"),
        pytest.param(tuple[int, int], "prefixItems would be lost", id="tuple"),
        pytest.param(Annotated[set[Word], Field(max_length=3)], "uniqueItems would be lost", id="set"),
        pytest.param(Annotated[list[str], Field(max_length=3)], "Model.field[]: a string", id="unbounded items"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_refused_with_its_path(annotation: Any, says: str) -> None:
    with pytest.raises(NotStructuralError, match=r"^Model\.field") as error:
        schema_for(annotation)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("annotation", "node"),
    [
        pytest.param(bool, {"type": "boolean"}, id="boolean"),
        pytest.param(int | None, {"type": "integer", "format": "int64"}, id="optional"),
        pytest.param(Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, id="words"),
        pytest.param(Literal["a"], {"type": "string", "enum": ["a"]}, id="one word"),
        pytest.param(
            Annotated[float, Field(gt=0, lt=1)],
            {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True},
            id="exclusive bounds",
        ),
        pytest.param(
            Annotated[str, StringConstraints(max_length=3, pattern="^a$")],
            {"type": "string", "maxLength": 3, "pattern": "^a$"},
            id="pattern",
        ),
        pytest.param(
            Annotated[dict[str, Word], Field(max_length=3)],
            {
                "type": "object",
                "maxProperties": 3,
                "additionalProperties": {"type": "string", "maxLength": 128},
            },
            id="map",
        ),
    ],
)
def test_what_it_can_say_is_said(annotation: Any, node: dict[str, Any]) -> None:
    assert schema_for(annotation)["properties"]["field"] == {**node, "description": SAID}


def test_a_field_without_a_docstring_is_refused() -> None:
    model = create_model("Model", __base__=ApiModel, field=(bool, ...))
    with pytest.raises(NotStructuralError, match=r"^Model\.field: a field needs a docstring"):
        structural(model.model_json_schema(), {}, "Model")
