from __future__ import annotations

import pytest


def test_text(one, tmp_path):
    document = one("notes/walk.txt", "A suit may be worn.\r\nFor eight hours.\n")
    assert document.text == "A suit may be worn.\nFor eight hours.\n"
    assert (document.id, document.title, document.format) == ("walk.txt", "walk", "text")
    assert document.source == (tmp_path / "notes/walk.txt").as_posix()
    assert not document.metadata


def test_a_file_without_suffix_is_text(one):
    assert one("README", "Read me.").text == "Read me."


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"%PDF-1.7 ...", "a PDF"),
        (b"PK\x03\x04...", "a ZIP archive"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\x1f\x8b\x08", "a gzip file"),
    ],
)
def test_binary_formats_are_named(reason, content, found):
    for name in ("a.txt", "a.md", "a.html", "a.csv", "a.jsonl"):
        assert f"is {found}" in reason(name, content)


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_a_byte_order_mark_alone_is_no_text(reason, name):
    assert reason(name, "\ufeff\n".encode("utf-16-le")) in ("is empty", "has no text")


def test_a_page_of_html_source_may_be_text(one):
    assert one("a.txt", "<html><p>Hi</p>").text == "<html><p>Hi</p>"
