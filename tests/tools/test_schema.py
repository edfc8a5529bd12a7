from __future__ import annotations

import json
from typing import Any

import pytest

from rag.core.errors import InputError
from tools.schema import resolve, written_out


def test_references_are_written_out() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/w~1~0"}}, "required": ["a"], "$defs": {"w/~": {"type": "string"}}}
    assert written_out(schema, schema) == {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def test_what_is_no_schema_keyword_goes() -> None:
    schema = {"type": "string", "pattern": "(a+)+$", "example": "x", "x-evil": 1, "xml": {}}
    assert written_out(schema, schema) == {"type": "string"}


def test_a_property_may_be_called_like_a_keyword() -> None:
    schema = {"type": "object", "properties": {"pattern": {"type": "string"}, "type": {"type": "integer"}}}
    assert written_out(schema, schema) == schema


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_two_references_to_itself_do_not_double_for_ever(keyword: str) -> None:
    schema: dict[str, Any] = {"$ref": "#/$defs/a", "$defs": {"a": {keyword: [{"$ref": "#/$defs/a"}] * 2}}}
    assert len(json.dumps(written_out(schema, schema))) < 100_000


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("https://evil.example.com/#/x", "only references within it"),
        ("file:///etc/passwd", "only references within it"),
        (5, "only references within it"),
        ("#/nowhere", "which is not in it"),
        ("#/text/0", "which is not in it"),
        ("#/text", "str where an object belongs"),
        ("#/circle", "circle"),
    ],
)
def test_a_bad_reference_is_an_input_error(reference: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        resolve({"text": "x", "circle": {"$ref": "#/circle"}}, {"$ref": reference})


@pytest.mark.parametrize("value", [None, 5, [], "x", {"properties": 5, "items": 5, "allOf": 5, "enum": {1: 2}}, {"default": {(1, 2): 3}}])
def test_what_is_no_schema_does_no_harm(value: Any) -> None:
    assert json.dumps(written_out({}, value))
