from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import docx
import pytest
from docx.document import Document as Word
from docx.oxml import parse_xml

from retrievers.readers import docx as reader

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def saved(word: Word) -> bytes:
    target = io.BytesIO()
    word.save(target)
    return target.getvalue()


def replaced(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target.getvalue()


@pytest.fixture(scope="module")
def plain() -> bytes:
    word = docx.Document()
    word.add_paragraph("MARK")
    return saved(word)


def with_body(plain: bytes, old: bytes, new: bytes) -> bytes:
    return replaced(plain, lambda name, data: data.replace(old, new) if name == "word/document.xml" else data)


def test_structure_and_order(one):
    word = docx.Document()
    word.add_heading("Suits", 0)
    word.add_heading("Wearing", 1)
    word.add_paragraph("Eight hours.\tNo longer.")
    word.add_paragraph("# not a heading")
    word.add_paragraph("Wash", style="List Bullet")
    word.add_paragraph("Dry", style="List Bullet")
    table = word.add_table(2, 2)
    for cell, text in zip([c for row in table.rows for c in row.cells], ["Part", "Hours", "Helmet | visor", "8"], strict=True):
        cell.text = text
    word.add_heading("Care", 2)
    document = one("a.docx", saved(word))
    assert document.text.split("\n\n") == [
        "# Suits",
        "# Wearing",
        "Eight hours.\tNo longer.",
        "\\# not a heading",
        "- Wash\n- Dry",
        "| Part | Hours |\n| --- | --- |\n| Helmet \\| visor | 8 |",
        "## Care",
    ]
    assert (document.title, document.format) == ("Suits", "markdown")


def test_the_title_in_the_properties_wins(one):
    word = docx.Document()
    word.core_properties.title = "Handbook"
    word.add_heading("Suits", 1)
    assert one("a.docx", saved(word)).title == "Handbook"


def test_merged_cells_are_not_repeated(one):
    word = docx.Document()
    table = word.add_table(2, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "Wide"
    table.cell(1, 0).text, table.cell(1, 1).text = "a", "b"
    assert one("a.docx", saved(word)).text == "| Wide |  |\n| --- | --- |\n| a | b |"


def test_insertions_count_deletions_do_not(one):
    word = docx.Document()
    word.element.body.insert(
        0,
        parse_xml(
            f"<w:p {W}><w:r><w:t>kept </w:t></w:r><w:ins><w:r><w:t>new</w:t></w:r></w:ins>"
            "<w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:hyperlink><w:r><w:t> link</w:t></w:r></w:hyperlink></w:p>"
        ),
    )
    word.element.body.insert(1, parse_xml(f"<w:sdt {W}><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"))
    assert one("a.docx", saved(word)).text == "kept new link\n\ncontrol"


def test_a_document_without_text_is_an_error(reason):
    assert "has no text" in reason("a.docx", saved(docx.Document()))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<html><p>Hi</p></html>", "is an HTML page, not a Word document"),
        (b"Just text", "is something else, not a Word document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....", "is an old or password-protected Office file, not a Word document"),
        (b"PK\x03\x04 and garbage", "is not a readable Word document"),
    ],
)
def test_other_files_are_named(reason, data, why):
    assert why in reason("a.docx", data)


def test_another_zip_archive_is_an_error(reason):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.txt", "x")
    assert "is not a readable Word document" in reason("a.docx", target.getvalue())


def test_a_truncated_file_is_an_error(reason, plain):
    assert "is not a readable Word document" in reason("a.docx", plain[: len(plain) // 2])


def test_a_decompression_bomb_is_refused_before_unpacking(reason, plain, monkeypatch):
    bomb = with_body(plain, b"MARK", b"a" * 40_000_000)
    assert len(bomb) * reader.MAX_RATIO < 40_000_000
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("the archive was unpacked"))
    assert "would unpack to 40," in reason("a.docx", bomb)


def test_a_directory_that_lies_about_a_size_is_an_error(reason, plain):
    bomb = with_body(plain, b"MARK", b"a" * 20_000_000)
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive:
        size = archive.getinfo("word/document.xml").file_size
    lying = bomb.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying != bomb
    assert "is not a readable Word document" in reason("a.docx", lying)


LAUGHS = b'<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
EXTERNAL = b'<!DOCTYPE x [<!ENTITY c SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("doctype", [LAUGHS, EXTERNAL])
@pytest.mark.parametrize("part", ["word/document.xml", "word/styles.xml", "docProps/core.xml", "_rels/.rels"])
def test_entity_attacks_are_refused(reason, plain, doctype, part):
    def attack(name: str, data: bytes) -> bytes:
        if name == "word/document.xml":
            data = data.replace(b"MARK", b"&c;") if name == part else data
        return data.replace(b"?>", b"?>" + doctype, 1) if name == part else data

    assert f"its part {part} declares a document type" in reason("a.docx", replaced(plain, attack))


def test_an_entity_attack_in_utf16_is_refused(reason, plain):
    def attack(name: str, data: bytes) -> bytes:
        if name != "word/document.xml":
            return data
        text = data.decode().replace("UTF-8", "UTF-16").replace("MARK", "&c;")
        return text.replace("?>", "?>" + LAUGHS.decode(), 1).encode("utf-16")

    assert "declares a document type" in reason("a.docx", replaced(plain, attack))


def test_the_parser_alone_would_not_expand_entities_either(plain, tmp_path):
    hostile = replaced(
        plain,
        lambda name, data: data.replace(b"MARK", b"a&c;b").replace(b"?>", b"?>" + EXTERNAL, 1) if name == "word/document.xml" else data,
    )
    assert "root:" not in docx.Document(io.BytesIO(hostile)).paragraphs[0].text


def test_deep_nesting_is_an_error_or_text(reason, plain):
    deep = b"</w:t></w:r>" + b"<w:smartTag>" * 5000 + b"<w:r><w:t>x</w:t></w:r>" + b"</w:smartTag>" * 5000 + b"<w:r><w:t>"
    assert "is not a readable Word document" in reason("a.docx", with_body(plain, b"MARK", deep))
