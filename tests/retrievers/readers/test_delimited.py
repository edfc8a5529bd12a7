from __future__ import annotations

import pytest

from retrievers.readers import read


def documents(put, content, name="faq.csv"):
    return list(read(put(name, content)))


def test_named_columns(put):
    text = 'id,title,text,year,team\n7,Suits,"Worn for 8 hours,\nno longer.",2024,ops\n8,Boots,Worn daily.,2023,\n'
    first, second = documents(put, text)
    assert (first.id, first.title, first.text) == ("faq.csv#7", "Suits", "Worn for 8 hours,\nno longer.")
    assert first.metadata == {"year": 2024, "team": "ops"}
    assert second.metadata == {"year": 2023, "team": None}


def test_questions_and_answers(put):
    (document,) = documents(put, "Question,Answer\nHow long?,Eight hours.\n")
    assert (document.id, document.title, document.text) == ("faq.csv#1", "How long?", "Eight hours.")


def test_without_a_text_column_all_columns_are_the_text(put):
    (document,) = documents(put, "part;hours;note\nhelmet;8;\n")
    assert document.text == "part: helmet\nhours: 8"
    assert document.metadata == {"part": "helmet", "hours": 8, "note": None}
    assert document.title == "faq"


def test_a_blank_text_cell_loses_nothing(put):
    (document,) = documents(put, "text,hours\n,8\n")
    assert document.text == "hours: 8"


def test_tsv_and_blank_rows(put):
    assert [d.id for d in documents(put, "text\tn\na, b\t1\n\t\n\nc\t2\n", "a.tsv")] == ["a.tsv#1", "a.tsv#4"]


def test_numbers_only_where_the_whole_column_is_numeric(put):
    first, _ = documents(put, "text,zip,price,code,mixed\na,00123,1.50,-3,1\nb,10115,2,4,x\n")
    assert first.metadata == {"zip": "00123", "price": 1.5, "code": -3, "mixed": "1"}


def test_gbk(put):
    (document,) = documents(put, "标题,text\n太空服,太空服最多可以在舱外使用八小时，这是我们的规定。\n".encode("gbk"))
    assert document.text == "太空服最多可以在舱外使用八小时，这是我们的规定。"
    assert document.metadata == {"标题": "太空服"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("1,2\n3,4\n", "line 1 must name the columns"),
        ("\nid,text\n", "line 1 must name the columns"),
        ("text,text\na,b\n", "names text twice"),
        ("text,,x\na,b,c\n", "column 2 of the header has no name"),
        ("text,x\n", "has a header but no rows"),
        ("text,x\na,b\na,b,c\n", "line 3 has 3 cells where the header has 2 (text, x); quote cells that hold ','"),
        ("id,text\n1,a\n2,b\n1,c\n", "lines 2 and 4 have the same id '1'"),
        ("id,text\n,a\n", "line 2: the column 'id' is blank"),
        ('text,x\n"a,b\nc,d\n', "check the quotes"),
        ("text,x\n" + "y" * 200_000 + ",1\n", "JSON Lines"),
    ],
)
def test_bad_tables_are_errors_before_any_document(reason, content, why):
    assert why in reason("faq.csv", content)
