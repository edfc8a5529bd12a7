from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets.record import Record, shorten


def record(**fields: Any) -> Record:
    return Record(fields, "x.json, record 1", "toy", "name, tags")


def test_a_name_may_be_a_number_but_not_a_truth_value() -> None:
    assert record(name=7).name("name") == "7"
    with pytest.raises(InputError, match=r"'name' must be an identifier .* not true/false"):
        record(name=True).name("name")
    with pytest.raises(InputError, match="must be an identifier"):
        record(name=" ").name("name")


def test_texts_are_stripped_and_distinct() -> None:
    assert record(tags=[" a", "b", "a", ""]).texts("tags") == ("a", "b")
    assert record(tags="a").texts("tags") == ("a",)


@pytest.mark.parametrize("value", [[1], {"a": "b"}, 3, ["a", None]])
def test_texts_of_another_kind_are_refused(value: Any) -> None:
    with pytest.raises(
        InputError, match=r"x\.json, record 1: 'tags' must be a list of texts.* Format toy expects name, tags\. The record: "
    ):
        record(tags=value).texts("tags")


def test_missing_and_null_are_the_same() -> None:
    for fields in ({}, {"name": None}):
        with pytest.raises(InputError, match="'name' or 'title' is missing"):
            record(**fields).text("name", "title")
        assert record(**fields).text("name", default="") == ""


def test_nested_records_say_where_they_are() -> None:
    with pytest.raises(InputError, match=r"record 1, tags\[1\]: 'text' is missing"):
        [item.text("text") for item in record(tags=[{"text": "a"}, {}]).records("tags")]
    with pytest.raises(InputError, match=r"'tags\[0\]' must be an object, not text"):
        list(record(tags=["a"]).records("tags"))
    with pytest.raises(InputError, match="'tags' must be an object, not a list"):
        record(tags=["a"]).record("tags")


def test_an_empty_text_and_a_wrong_flag_are_refused() -> None:
    with pytest.raises(InputError, match="'name' is empty"):
        record(name="  ").filled("name")
    with pytest.raises(InputError, match="'name' must be true or false, not text"):
        record(name="true").flag("name")
    with pytest.raises(InputError, match="'name' must be a list, not text"):
        record(name="true").items("name")


def test_a_record_is_shown_short_and_with_all_kinds_of_values() -> None:
    shown = shorten({"text": "x" * 1000, "list": list(range(100)), "deep": {"a": {"b": {"c": {"d": 1}}}}, "bad": "\ud83d"})
    assert len(shown) <= 240
    assert shown.startswith('{"text": "xxxx')
    assert '"list": [0, 1, "…"]' in shown
    shown.encode("utf-8")
