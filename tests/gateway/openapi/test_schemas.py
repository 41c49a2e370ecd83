"""Schemas by strangers: what is taken over, what is not, and under which name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from gateway.openapi.components import MAX_ALL_SCHEMAS, Components
from gateway.openapi.schemas import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_PATTERN,
    MAX_SCHEMA,
    UnfitError,
    _narrowed,
    read_schema,
)


def place(components: Components, schema: object, name: str = "request") -> Any:
    return components.add(orjson.dumps(schema), "Shop.Sku", name)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


TREE = {
    "$defs": {
        "Node": {
            "properties": {"left": {"$ref": "#/$defs/Node"}, "name": {"type": "string"}},
            "title": "Node",
            "type": "object",
        }
    },
    "properties": {"root": {"$ref": "#/$defs/Node"}},
    "required": ["root"],
    "title": "Tree",
    "type": "object",
}


def test_definitions_become_components_and_references_follow() -> None:
    components = Components()
    assert place(components, TREE) == {"$ref": "#/components/schemas/Shop.Sku.Tree"}
    node = components.schemas["Shop.Sku.Node"]
    assert isinstance(node, dict)
    assert node["properties"]["left"] == {"$ref": "#/components/schemas/Shop.Sku.Node"}
    assert set(components.schemas) == {"Shop.Sku.Tree", "Shop.Sku.Node"}
    assert "title" not in node, "generators would name classes for it"


def test_equal_ones_are_one_and_others_of_that_name_are_kept_apart() -> None:
    components = Components()
    first = place(components, TREE)
    assert place(components, TREE) == first
    other = place(components, {**TREE, "required": []})
    assert other != first
    assert other["$ref"].startswith(f"{first['$ref']}-")
    assert len(components.schemas) == 3


def test_what_refers_to_itself_as_a_whole_becomes_a_component() -> None:
    components = Components()
    reference = place(components, {"type": "array", "items": {"$ref": "#"}}, "list")
    assert reference == {"$ref": "#/components/schemas/Shop.Sku.list"}
    assert components.schemas["Shop.Sku.list"] == {"type": "array", "items": reference}


def test_names_of_definitions_are_made_fit_for_a_document() -> None:
    components = Components()
    place(components, {"$defs": {"a/b <é>": {"type": "string"}}, "$ref": "#/$defs/a~1b <é>"})
    assert list(components.schemas) == ["Shop.Sku.a_b_"]


def test_discriminators_lead_to_components() -> None:
    components = Components()
    place(
        components,
        {
            "$defs": {"Cat": {"type": "object"}},
            "oneOf": [{"$ref": "#/$defs/Cat"}],
            "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat"}},
        },
    )
    assert "Shop.Sku.Cat" in components.schemas


@pytest.mark.parametrize(
    "schema",
    [
        5,
        {"type": "text"},
        {"type": []},
        {"type": 5},
        {"properties": []},
        {"properties": {"a": 5}},
        {"required": [1]},
        {"required": "a"},
        {"anyOf": []},
        {"anyOf": {}},
        {"minLength": -1},
        {"minLength": True},
        {"minimum": "0"},
        {"exclusiveMinimum": True},
        {"multipleOf": 0},
        {"pattern": "("},
        {"pattern": "a" * (MAX_PATTERN + 1)},
        {"pattern": "(?:a{60000}){60000}" * 3 + "{999999999999}"},
        {"patternProperties": {"(": {}}},
        {"enum": []},
        {"title": 5},
        {"uniqueItems": 1},
        {"$ref": "http://elsewhere.example/schema.json"},
        {"$ref": "#/$defs/None"},
        {"$ref": "#/components/schemas/Problem"},
        {"$ref": 5},
        {"$ref": "#"},
        {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"allOf": [{"$ref": "#/$defs/A"}]}}},
        {"$defs": {"": {}}},
        {"$defs": []},
        {"$id": "http://elsewhere.example/"},
        {"$dynamicRef": "#x"},
        {"default": {"deep": [{"$ref": "nowhere"}]}},
        {"enum": [{"$ref": "nowhere"}]},
        {"discriminator": {"mapping": {}}},
        {"discriminator": {"propertyName": "a", "mapping": {"a": "elsewhere"}}},
        nested(MAX_DEPTH + 1),
        {"properties": {str(number): {} for number in range(MAX_NODES + 1)}},
        {"description": "a" * MAX_SCHEMA},
    ],
)
def test_what_is_no_good_is_left_out_as_a_whole(schema: object) -> None:
    components = Components()
    assert place(components, {"properties": {"fine": True}, **schema} if isinstance(schema, dict)
                 and "properties" not in schema else schema) is None  # fmt: skip
    assert components.left_out == 1
    assert components.schemas == {}


def test_what_is_unknown_or_only_talk_is_dropped() -> None:
    (part,) = read_schema(
        b'{"$schema":"x","$comment":"y","x-own":1,"type":["string","null"],"title":"a\\u0000b"}'
    ).values()
    assert part.schema == {"type": ["null", "string"], "title": "a b"}


def test_a_flood_of_schemas_is_taken_up_to_a_limit() -> None:
    components = Components()
    text = orjson.dumps({"enum": ["x" * (MAX_SCHEMA - 100)]})
    count = MAX_ALL_SCHEMAS // len(text) + 3
    placed = [components.add(text, "A", f"s{number}") for number in range(count)]
    assert placed[0] is not None
    assert components.left_out == placed.count(None) == 3


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "items", "anyOf", "allOf", "not", "$ref", "$defs", "enum"),
        *("const", "required", "pattern", "minimum", "maxLength", "additionalProperties"),
        *("default", "discriminator", "title", "prefixItems", "if", "dependentRequired"),
    ]
)
_VALUES = st.sampled_from(
    ["string", "object", "#/$defs/a", "#", ["a"], {"a": {}}, {"a": {"$ref": "#/$defs/a"}}, True, {}]
)
_FLAT = st.dictionaries(_KEYWORDS, _VALUES, max_size=3)
_SCHEMAS = st.dictionaries(
    _KEYWORDS,
    _VALUES | _FLAT | st.lists(_FLAT, max_size=2) | st.dictionaries(st.just("a"), _FLAT),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_SCHEMAS, max_size=4))
def test_whatever_is_taken_over_leaves_a_document_valid(schemas: list[Any]) -> None:
    components = Components()
    content = {
        f"application/{number}": {"schema": found}
        for number, schema in enumerate(schemas)
        if (found := place(components, schema)) is not None
    }
    validate(
        {
            "openapi": "3.1.0",
            "info": {"title": "t", "version": "1"},
            "paths": {
                "/": {"get": {"responses": {"200": {"description": "", "content": content}}}}
            },
            "components": {"schemas": components.schemas},
        }
    )


@given(st.binary() | _JSON.map(orjson.dumps))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        parts = read_schema(text)
    except UnfitError:
        return
    assert "" in parts


# -- what costs time --------------------------------------------------------------------


def ring(count: int) -> dict[str, Any]:
    """So many definitions, each of which leads to all others."""
    definitions = {
        f"D{number}": {"properties": {"next": {"$ref": f"#/$defs/D{(number + 1) % count}"}}}
        for number in range(count)
    }
    return {"$defs": definitions, "properties": {"first": {"$ref": "#/$defs/D0"}}}


def test_definitions_that_all_lead_to_each_other_are_taken_up_to_a_number() -> None:
    components = Components()
    assert place(components, ring(90)) is not None
    assert place(components, ring(900)) is None
    assert components.left_out == 1


def test_what_takes_time_takes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.openapi.components.MAX_ALL_SCHEMAS", 250_000)
    components = Components()
    taken = [place(components, {**ring(90), "title": f"R{number}"}) for number in range(5)]
    assert [one is not None for one in taken] == [True, True, False, False, False]
    components = Components()
    for _ in range(3):
        assert place(components, ring(900)) is None
    assert place(components, {"title": "x" * 60_000, "type": "object"}) is None, "no room is left"


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [
        (r"[\u0100-\uffff]", "[\x7f-\x7f]"),
        ("[\u0100-\uffff]é\\é", "[\x7f-\x7f]\x7f\x7f"),
        (r"[a-\U0010ffff]\N{EM DASH}", "[a-\x7f]\x7f"),
        (r"\\u0100[\x41-\xff\177]", "\\\\u0100[\\x41-\x7f\x7f]"),
        (r"^\d+(?:\.\d{2})?$", r"^\d+(?:\.\d{2})?$"),
        (r"\n[^\]]", r"\n[^\]]"),
    ],
)
def test_a_pattern_is_tried_in_ascii(pattern: str, shape: str) -> None:
    """Python takes a second for a set of long ranges, and a schema may have a hundred of them."""
    assert _narrowed(pattern) == shape
    assert read_schema(orjson.dumps({"pattern": pattern}))[""].schema == {"pattern": pattern}


@pytest.mark.parametrize("pattern", ["[\uffff-a]", r"[\u0100-a]", r"\u12", "\\", "é{2,1}"])
def test_what_is_no_pattern_in_wide_characters_is_none_still(pattern: str) -> None:
    with pytest.raises(UnfitError):
        read_schema(orjson.dumps({"pattern": pattern}))


def test_a_pattern_that_python_only_warns_of_is_one() -> None:
    assert read_schema(b'{"pattern":"[a&&b]|[[x]"}')[""].schema == {"pattern": "[a&&b]|[[x]"}


# -- defaults ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "default": "a", "title": "T", "maxLength": 1, "minLength": 1},
        {"type": ["integer", "null"], "default": None, "minimum": 3},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "default": [1, 2.5]},
        {"type": "array", "items": {"$ref": "#/$defs/a"}, "default": [], "$defs": {"a": True}},
        {"properties": {"a": {"const": 1}}, "required": ["a"], "default": {"a": 1, "b": 2}},
        {"enum": [{"a": 1, "b": 2}], "default": {"b": 2, "a": 1}},
        {"type": "object", "default": {}, "maxProperties": 0, "properties": {"a": False}},
        {"type": "boolean", "default": False, "minimum": 5, "minLength": 3, "items": False},
    ],
)
def test_a_default_that_fits_stays(schema: dict[str, Any]) -> None:
    made = read_schema(orjson.dumps(schema))[""].schema
    assert isinstance(made, dict)
    assert made["default"] == schema["default"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "default": {}},
        {"type": "integer", "default": True},
        {"type": "number", "default": False},
        {"type": "integer", "default": 2, "minimum": 3},
        {"exclusiveMaximum": 2, "default": 2},
        {"type": "string", "default": "ab", "maxLength": 1},
        {"enum": [1], "default": True},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "default": 1},
        {"items": {"type": "string"}, "default": ["a", 1]},
        {"properties": {"a": False}, "default": {"a": 1}},
        {"required": ["a"], "default": {}},
        {"$ref": "#/$defs/a", "default": 1, "$defs": {"a": {"type": "integer"}}},
        {"type": "string", "pattern": "^a+$", "default": "a"},
    ],
)
def test_one_that_does_not_or_cannot_be_told_is_left_out(schema: dict[str, Any]) -> None:
    """It would make the document of everybody invalid."""
    made = read_schema(orjson.dumps(schema))[""].schema
    assert isinstance(made, dict)
    assert "default" not in made
    assert made.keys() == schema.keys() - {"default", "$defs"}


def test_so_many_defaults_are_looked_at_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.openapi.defaults.MAX_CHECKS", 10)
    one = {"type": "integer", "default": 1}
    made = read_schema(orjson.dumps({"properties": dict.fromkeys("abcdefgh", one)}))[""].schema
    assert isinstance(made, dict)
    kept = ["default" in member for member in made["properties"].values()]
    assert kept == [True] * 5 + [False] * 3
    flood = {"items": {"enum": list(range(100))}, "default": [5] * 100}
    assert "default" not in read_schema(orjson.dumps(flood))[""].schema  # type: ignore[operator]
