from __future__ import annotations

import json

import pytest

from retrievers.readers import read


def test_records(put):
    lines = [
        {"id": "a", "text": "One.", "title": "First", "metadata": {"year": 2024, "tags": ["x"]}, "lang": "en"},
        {"_id": 9, "contents": "Two."},
        {"text": "行\u2028三"},
    ]
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    first, second, third = read(put("c.jsonl", content))
    assert (first.id, first.title, first.text) == ("c.jsonl#a", "First", "One.")
    assert first.metadata == {"year": 2024, "tags": '["x"]', "lang": "en"}
    assert (second.id, second.title, second.text) == ("c.jsonl#9", "c", "Two.")
    assert (third.id, third.text) == ("c.jsonl#3", "行\u2028三")


def test_characters_that_cannot_be_stored(one):
    document = one("c.jsonl", '{"text": "a\\ud800\\u0000b", "id": "x\\udfff", "title": "\\ud800", "\\ud800": "\\ud800"}')
    assert document.text == "a\ufffd\ufffdb"
    document.id.encode()
    for key, value in document.metadata.items():
        f"{key}{value}".encode()


def test_messages_can_be_printed(reason):
    reason("c.jsonl", '{"\\ud800": 1}').encode()


def test_numbers_past_64_bits_are_kept_as_text(one):
    assert one("c.jsonl", '{"text": "a", "n": 99999999999999999999}').metadata == {"n": "99999999999999999999"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1, 2]", "it holds a list, not an object"),
        ('"text"', "it holds a string"),
        ('{"body": "x"}', "it has no field 'text', only body"),
        ("{}", "only nothing"),
        ('{"text": ""}', "'text' is blank"),
        ('{"text": null}', "'text' is null"),
        ('{"text": ["a"]}', "'text' is a list"),
        ('{"text": "a", "id": {}}', "'id' is an object"),
        ('{"text": "a", "id": ""}', "'id' is blank"),
        ('{"text": "a", "id": true}', "'id' is true or false"),
        ('{"text": "a", "title": 3}', "'title' is a number"),
        ('{"text": "a", "metadata": [1]}', "'metadata' is a list"),
        ('{"text": "a", "x": NaN}', "NaN is not JSON"),
        ('{"text": "a", "x": 1e999}', "infinity"),
        ('{"text": "a"', "Expecting"),
        ('{"text": "a", "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"text": "a", "x": ' + "9" * 5_000 + "}", "line 2"),
    ],
)
def test_bad_lines_are_errors_before_any_document(reason, line, why):
    message = reason("c.jsonl", '{"text": "fine"}\n' + line + "\n")
    assert message.startswith("line 2: ")
    assert why in message
    assert '"text": "…"' in message


def test_an_id_used_twice_names_both_lines(reason):
    assert "lines 1 and 3 have the same id 'a'" in reason("c.jsonl", '{"id":"a","text":"x"}\n{"text":"y"}\n{"id":"a","text":"z"}\n')
    assert "lines 1 and 2 have the same id '2'" in reason("c.jsonl", '{"id":"2","text":"x"}\n{"text":"y"}\n')
