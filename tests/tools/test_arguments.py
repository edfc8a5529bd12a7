from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import InputError
from tools.arguments import check_arguments

SCHEMA = {
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "ratio": {"type": ["number", "null"]},
        "unit": {"enum": ["C", "F"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {"$ref": "#/$defs/Place"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
    },
    "required": ["city"],
    "$defs": {"Place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"days": 3},
        {"days": 3.0},
        {"ratio": None},
        {"ratio": 2},
        {"unit": "C"},
        {"tags": ["a"]},
        {"place": {"x": 1, "y": 2}},
        {"either": True},
    ],
)
def test_what_the_schema_describes_passes(more: dict[str, Any]) -> None:
    check_arguments(SCHEMA, {"city": "Oslo", **more}, "weather")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "weather: missing 'city'; it takes 'city', 'days'"),
        ({"city": 7}, r"weather\.city: must be string, not int '7'"),
        ({"city": "Oslo", "day": 3}, "weather: unknown argument 'day'; it takes"),
        ({"city": "Oslo", "days": True}, r"days: must be integer, not bool"),
        ({"city": "Oslo", "days": 2.5}, r"days: must be integer, not float"),
        ({"city": "Oslo", "ratio": "2"}, "ratio: must be number or null"),
        ({"city": "Oslo", "unit": "K"}, "unit: 'K' is not one of 'C', 'F'"),
        ({"city": "Oslo", "tags": ["a", 2]}, r"tags\[2\]: must be string"),
        ({"city": "Oslo", "place": {}}, "place: missing 'x'"),
        ({"city": "Oslo", "either": "no"}, "either: fits none of 2 forms"),
        (["Oslo"], "must be an object, not list"),
        (None, "must be an object"),
    ],
)
def test_what_it_does_not_describe_is_refused_with_its_place(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_arguments(SCHEMA, arguments, "weather")


def test_an_argument_without_a_name_in_the_schema_passes_only_if_the_schema_says_so() -> None:
    check_arguments({"properties": {}, "additionalProperties": {"type": "integer"}}, {"n": 1}, "t")
    with pytest.raises(InputError, match=r"t\.n: must be integer"):
        check_arguments({"properties": {}, "additionalProperties": {"type": "integer"}}, {"n": "1"}, "t")
    with pytest.raises(InputError, match="it takes nothing"):
        check_arguments({}, {"n": 1}, "t")


def test_a_schema_that_refers_to_itself_or_to_nothing_ends() -> None:
    endless = {"properties": {"n": {"$ref": "#/properties/n"}}}
    with pytest.raises(InputError, match="deeper than 32 levels"):
        check_arguments(endless, {"n": 1}, "t")
    with pytest.raises(InputError, match="which it does not hold"):
        check_arguments({"properties": {"n": {"$ref": "#/$defs/no"}}}, {"n": 1}, "t")
    with pytest.raises(InputError, match="which it does not hold"):
        check_arguments({"properties": {"n": {"$ref": "http://169.254.169.254/x"}}}, {"n": 1}, "t")


def test_a_deep_value_ends_too() -> None:
    tree: dict[str, Any] = {"properties": {"c": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"properties": {"c": {"$ref": "#/$defs/T"}}}}}
    value: dict[str, Any] = {}
    for _ in range(200):
        value = {"c": value}
    with pytest.raises(InputError, match="deeper than 32 levels"):
        check_arguments(tree, value, "t")


def test_a_schema_that_refers_to_itself_many_times_is_given_up() -> None:
    schema = {"properties": {"tree": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": {"anyOf": [{"$ref": "#/$defs/tree"}] * 8}}}
    with pytest.raises(InputError, match=r"10,000 checks|32 levels"):
        check_arguments(schema, {"tree": 1}, "plant")
