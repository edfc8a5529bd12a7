"""Typesets `pdf_sources/**/*.md` as the PDF pages of the handbook, `docs/**/*.pdf`, with the same bytes each time.

    python examples/handbook/build_pdfs.py                # rewrite the committed PDFs
    python examples/handbook/build_pdfs.py --out FOLDER   # write them elsewhere

Needs fpdf2 (part of `pip install 'graft-rag[dev]'`). The sources use a small part of Markdown: `#` and `##` headings, paragraphs on
one line, `- ` and `1. ` lists and pipe tables, in Latin-1, which is what the core fonts of PDF can show.
"""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from fpdf import FPDF, __version__

HERE = Path(__file__).parent
SOURCES = HERE / "pdf_sources"
DOCS = HERE / "docs"
CREATED = datetime(2046, 3, 1, 9, 0, tzinfo=UTC)  # a wall clock here would change the bytes of every build
LINE_HEIGHT = 6.2  # mm
LIST_INDENT = 6.0  # mm


def kind(line: str) -> str:
    """What a source line is: blank, heading, table, list or paragraph."""
    if not line.strip():
        return "blank"
    if line.startswith("#"):
        return "heading"
    if line.startswith("|"):
        return "table"
    if re.match(r"(- |\d+\. )", line):
        return "list"
    return "paragraph"


def typeset(source: str) -> bytes:
    """The PDF file of one source text.

    Raises `fpdf.errors.FPDFUnicodeEncodingException` for a character outside Latin-1.
    """
    lines = source.splitlines()
    pdf = FPDF(format="A4")
    pdf.set_compression(False)  # compressed streams differ between zlib builds, and the files are small anyway
    pdf.set_creation_date(CREATED)
    pdf.set_title(lines[0].removeprefix("# "))
    pdf.set_author("Ombrey Cooperative")
    pdf.set_producer(f"fpdf2 {__version__}")  # another version may break lines elsewhere; this says which one did
    pdf.set_margin(22)
    pdf.set_auto_page_break(True, margin=20)
    pdf.add_page()
    for block, members in groupby(lines, key=kind):
        draw(pdf, block, list(members))
    return bytes(pdf.output())


def draw(pdf: FPDF, block: str, lines: list[str]) -> None:
    """Set neighbouring lines of one kind at the cursor."""
    if block == "blank":
        pdf.ln(LINE_HEIGHT / 2)
    elif block == "heading":
        for line in lines:
            heading(pdf, line)
    elif block == "table":
        table(pdf, lines)
    else:
        indent = LIST_INDENT if block == "list" else 0.0
        pdf.set_font("Helvetica", size=12)
        for line in lines:
            pdf.set_x(pdf.l_margin + indent)
            pdf.multi_cell(0, LINE_HEIGHT, line, align="L", new_x="LMARGIN", new_y="NEXT")


def heading(pdf: FPDF, line: str) -> None:
    level = len(line) - len(line.lstrip("#"))
    pdf.set_font("Helvetica", style="B", size=18 if level == 1 else 13)
    pdf.multi_cell(0, 9 if level == 1 else 7, line.lstrip("# "), align="L", new_x="LMARGIN", new_y="NEXT")


def table(pdf: FPDF, lines: list[str]) -> None:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    pdf.set_font("Helvetica", size=11)
    with pdf.table(text_align="LEFT", line_height=LINE_HEIGHT, padding=0.8) as grid:
        for cells in [rows[0], *rows[2:]]:  # the second line is the rule under the header
            grid.row(cells)


def build(out: Path) -> list[Path]:
    """Typeset every source into the same relative place under `out`; returns the files written, in order of their names."""
    written = []
    for source in sorted(SOURCES.rglob("*.md")):
        target = (out / source.relative_to(SOURCES)).with_suffix(".pdf")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(typeset(source.read_text(encoding="utf-8")))
        written.append(target)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Typeset the PDF pages of the handbook.")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder to write to (default: %(default)s)")
    for path in build(parser.parse_args().out):
        print(path)
