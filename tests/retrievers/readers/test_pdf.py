from __future__ import annotations

import io
import zlib

import pypdf
import pytest
from fpdf import FPDF

from retrievers.readers import pdf as reader


def pdf(*pages: str, title: str = "", width: float = 0) -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    if title:
        document.set_title(title)
    for page in pages:
        document.add_page()
        if page:
            document.multi_cell(width, 6, page)
    return bytes(document.output())


def raw(content: bytes, *, filters: str = "/FlateDecode", pages: int = 1, kids: str = "") -> bytes:
    """A PDF written by hand: one content stream, shared by all pages."""
    refs = kids or " ".join(["4 0 R"] * pages)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{refs}] /Count {pages} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 3 0 R >> >> /Contents 5 0 R >>",
        f"<< /Length {len(content)} /Filter {filters} >>\nstream\n".encode() + content + b"\nendstream",
    ]
    out = io.BytesIO(b"")
    out.write(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n" % number + body + b"\nendobj\n")
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % offset for offset in offsets)
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start))
    return out.getvalue()


def test_text_title_and_pages(one):
    document = one("a.pdf", pdf("A suit may be worn for eight hours.", "Boots are worn daily.", title="Handbook"))
    assert document.text == "A suit may be worn for eight hours.\n\nBoots are worn daily."
    assert (document.title, document.format) == ("Handbook", "text")
    assert document.metadata == {"pages": 2}


@pytest.mark.parametrize("title", ["", "untitled", "Microsoft Word - plan.docx", "report_final.tex"])
def test_a_title_that_is_none_is_not_used(one, title):
    assert one("plan.pdf", pdf("Text.", title=title)).title == "plan"


def test_pages_without_text_are_counted(one):
    assert one("a.pdf", pdf("Text.", "", "More.")).metadata == {"pages": 3, "pages_without_text": 1}


def test_a_sentence_over_a_page_break_stays_in_one_paragraph(one):
    assert one("a.pdf", pdf("The suit must be\ndried and", "put away. The end.")).text == "The suit must be\ndried and\nput away. The end."


def test_running_headers_and_page_numbers_go(one):
    pages = [
        f"Handbook v2\nThis is what page {word} says, and only this one.\n{n} / 4"
        for n, word in enumerate(["one", "two", "three", "four"], 1)
    ]
    text = one("a.pdf", pdf(*pages)).text
    assert "Handbook" not in text
    assert "/ 4" not in text
    assert all(f"page {word} says" in text for word in ("one", "two", "three", "four"))


def test_a_page_of_one_line_is_never_a_running_header(one):
    assert one("a.pdf", pdf("Step 1", "Step 2", "Step 3")).text.split() == ["Step", "1", "Step", "2", "Step", "3"]


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("an exam-\nple", "an example"),
        ("the well-\nknown and well-known", "the well-known and well-known"),
        ("Anglo-\nSaxon", "Anglo-Saxon"),
        ("pages 3-\n4", "pages 3-\n4"),
        ("soft\xad\nware", "software"),
        ("这是一个很长\n的句子。\n第二段", "这是一个很长的句子。\n第二段"),
    ],
)
def test_words_split_at_line_ends_are_mended(broken, mended):
    assert reader._mended(broken) == mended


def test_other_files_are_named(reason):
    assert "is an HTML page, not a PDF as its suffix says" in reason("a.pdf", b"<!DOCTYPE html><html><p>404</p></html>")
    assert "is something else, not a PDF" in reason("a.pdf", b"plain text")


def test_bytes_before_the_header_are_allowed(one):
    assert one("a.pdf", b"\n\n" + pdf("Text.")).text == "Text."


def test_a_scan_without_text_layer_is_an_error(reason):
    assert "has no text layer on its 2 pages (scanned images?); run OCR" in reason("a.pdf", pdf("", ""))


def encrypted(password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("Secret text.")))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def test_a_password_is_named(reason):
    assert "is protected by a password" in reason("a.pdf", encrypted("secret"))


def test_a_file_that_opens_without_password_is_read(one):
    assert one("a.pdf", encrypted("")).text == "Secret text."


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_error_or_text(put, cut):
    from rag.core.errors import ReadError
    from retrievers.readers import read

    whole = pdf("A suit may be worn for eight hours.")
    path = put("a.pdf", whole[: int(len(whole) * cut)])
    try:
        texts = [document.text for document in read(path)]
    except ReadError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    else:
        assert texts == ["A suit may be worn for eight hours."]


def test_a_decompression_bomb_is_refused(reason):
    message = reason("a.pdf", raw(zlib.compress(b" " * 90_000_000, 9)))
    assert "damaged or unsupported PDF" in message
    assert "limit" in message.lower()


def test_many_pages_of_one_large_stream_are_refused(reason, monkeypatch):
    monkeypatch.setattr(reader, "MAX_CONTENT_BYTES", 1_000_000)
    assert "unpack to more than 1,000,000 bytes (stopped at page 3)" in reason("a.pdf", raw(zlib.compress(b" " * 400_000), pages=50))


def test_too_many_pages_are_refused(reason, monkeypatch):
    monkeypatch.setattr(reader, "MAX_PAGES", 3)
    assert "has 4 pages, more than the limit of 3" in reason("a.pdf", pdf(*["x"] * 4))


def test_too_much_text_is_refused(reason, monkeypatch):
    monkeypatch.setattr(reader, "MAX_CHARACTERS", 10)
    assert "more than 10 characters of text (stopped at page 1)" in reason("a.pdf", pdf("A suit may be worn."))


def test_a_page_tree_that_contains_itself_is_an_error(reason):
    assert reason("a.pdf", raw(zlib.compress(b"BT ET"), kids="2 0 R"))


def test_a_cross_reference_loop_ends(reason):
    looped = b"%PDF-1.7\nxref\n0 1\n0000000000 65535 f \ntrailer << /Size 1 /Prev 9 /Root 1 0 R >>\nstartxref\n9\n%%EOF"
    assert "damaged or unsupported PDF" in reason("a.pdf", looped)


def test_what_surrounds_the_text_is_not_followed(one):
    """Outlines that contain themselves, and XMP metadata with entities that name a file and grow: neither is read."""
    xmp = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd"><!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><title>&f;&b;</title>'
    outline = b"7 0 obj\n<< /Title (Loop) /Parent 6 0 R /First 7 0 R /Last 7 0 R /Next 7 0 R >>\nendobj\n"
    outline += b"6 0 obj\n<< /Type /Outlines /First 7 0 R /Last 7 0 R /Count 1 >>\nendobj\n"
    stream = b"8 0 obj\n<< /Type /Metadata /Subtype /XML /Length %d >>\nstream\n%s\nendstream\nendobj\n" % (len(xmp), xmp)
    plain = pdf("A suit may be worn for eight hours.")
    catalog = plain.rindex(b"/Type /Catalog")
    hostile = plain[:catalog] + b"/Outlines 96 0 R /Metadata 98 0 R " + plain[catalog:]
    added = (outline + stream).replace(b"6 0 ", b"96 0 ").replace(b"7 0 ", b"97 0 ").replace(b"8 0 ", b"98 0 ")
    start = hostile.rindex(b"xref\n", 0, hostile.rindex(b"startxref"))
    document = one("a.pdf", hostile[:start] + added + hostile[start:])
    assert document.text == "A suit may be worn for eight hours."
    assert document.title == "a"
    assert "root:" not in str(document)
