from __future__ import annotations

import pytest

from rag.core.errors import InputError, ReadError
from rag.evaluate.datasets import load
from rag.evaluate.datasets.source import Source
from tests.rag.evaluate.datasets.conftest import Write

LINE = '{"question": "Why?", "answers": ["so"]}'


@pytest.mark.parametrize("content", ["", "  \n\n", "\ufeff"])
def test_an_empty_file_is_refused(write: Write, content: str) -> None:
    with pytest.raises(InputError, match="the file is empty"):
        load(write("x.json", content))


@pytest.mark.parametrize(
    ("content", "line"), [(f"[{LINE},\n{LINE[:20]}", 2), (LINE[:-5], 1), (f"{LINE}\n{LINE}\n{LINE[:12]}", 3), ('{"data": [', 1)]
)
def test_truncated_json_names_the_line(write: Write, content: str, line: int) -> None:
    with pytest.raises(
        InputError, match=rf"line {line}, column \d+: neither JSON nor JSON Lines: it ends in the middle of a value \(truncated\?\)"
    ):
        load(write("x.json", content))


def test_broken_json_names_the_line_and_shows_it(write: Write) -> None:
    with pytest.raises(InputError, match=r"line 2, column 11: neither JSON nor JSON Lines: Expecting ':' delimiter\. The line: .*Broken"):
        load(write("x.jsonl", f'{LINE}\n{{"Broken" "x"}}\n{LINE}\n'))


def test_plain_text_is_no_data_set(write: Write) -> None:
    with pytest.raises(InputError, match="line 1, column 1: neither JSON nor JSON Lines"):
        load(write("x.json", "Dear all,\nthis is not JSON.\n"))


def test_another_encoding_names_the_line_and_byte(write: Write) -> None:
    with pytest.raises(ReadError, match="line 2: byte 0xe4 is not UTF-8; save the file again as UTF-8"):
        load(write("x.jsonl", f'{LINE}\n{{"question": "Bär?"}}\n'.encode("latin-1")))


def test_utf_16_is_named(write: Write) -> None:
    with pytest.raises(ReadError, match="this is UTF-16"):
        load(write("x.jsonl", LINE.encode("utf-16")))


def test_a_byte_order_mark_is_dropped(write: Write) -> None:
    assert load(write("x.jsonl", b"\xef\xbb\xbf" + LINE.encode())).questions[0].question == "Why?"


def test_json_lines_are_read_whatever_the_suffix_and_line_ends(write: Write) -> None:
    assert len(load(write("x.json", f"{LINE}\r\n\r\n{LINE}\r\n")).questions) == 2
    assert len(load(write("one.jsonl", LINE)).questions) == 1


def test_a_line_separator_inside_a_text_does_not_end_the_line(write: Write) -> None:
    questions = load(write("x.jsonl", f'{{"question": "a\u2028b?", "answers": ["c"]}}\n{LINE}\n')).questions
    assert [question.question for question in questions] == ["a\u2028b?", "Why?"]


@pytest.mark.parametrize("content", ["[]", "[1, 2]", "3", '"text"', "{}", "null"])
def test_json_without_records_is_no_known_format(write: Write, content: str) -> None:
    with pytest.raises(InputError, match="no known data format"):
        load(write("x.json", content))


@pytest.mark.parametrize("content", ["[]", "[1, 2]", "3", "null"])
@pytest.mark.parametrize("format", ["own", "squad"])
def test_json_without_records_is_not_the_format_named(write: Write, content: str, format: str) -> None:
    with pytest.raises(InputError, match=format):
        load(write("x.json", content), format=format)


def test_a_record_that_is_no_object_is_shown(write: Write) -> None:
    with pytest.raises(InputError, match=r'line 2: not an object\. Format own expects .* The record: \["Why'):
        load(write("x.jsonl", f'{LINE}\n["Why?"]\n'))


def test_nan_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="holds NaN, which is not JSON"):
        load(write("x.json", '[{"question": "Why?", "answers": ["so"], "weight": NaN}]'))


def test_nesting_without_end_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="nested too deep"):
        load(write("x.json", "[" * 200_000))


def test_half_a_surrogate_pair_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="half a surrogate pair"):
        load(write("x.jsonl", '{"question": "\\ud83d?", "answers": ["so"]}'))


def test_a_table_row_of_another_length_is_shown(write: Write) -> None:
    with pytest.raises(InputError, match=r"line 3: this row has another number of cells than the header \(question, answers\)"):
        load(write("x.csv", "question,answers\nWhy?,so\nWhy, not?,so\n"))


def test_an_open_quote_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="not a table"):
        load(write("x.csv", 'question,answers\n"Why?,so\n'))


def test_a_table_without_rows_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="no known data format"):
        load(write("x.csv", "question,answers\n"))


def test_rows_in_memory_are_no_file(write: Write) -> None:
    path = write("folder/x.json", "[]").parent
    source = Source(path, [{"question": "Why?"}])
    assert not source.is_folder()
    assert source.beside("x.json") is None
    assert source.records()[0].where == f"{path}, record 1"
