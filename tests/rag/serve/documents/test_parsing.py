"""Files are parsed in a process of their own, and hostile ones end there."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import InputError, ReadError
from rag.core.types import Document
from rag.serve.documents import parser_child
from rag.serve.documents.parsing import Parser, ParserLimits
from rag.serve.documents.spool import Spool
from tests.rag.serve.documents.parts import billion_laughs, docx, many_paragraphs, paragraph, pdf, zip_bomb


def parsed(tmp_path: Path, name: str, data: bytes, limits: ParserLimits = ParserLimits(), **options: Any) -> list[Document]:
    spool = Spool(tmp_path / "spool")
    file = spool.create(Path(name).suffix)
    file.write(data)
    file.close()
    try:
        return list(asyncio.run(Parser(spool, limits, **options).parse(name, file)))
    finally:
        spool.close()


def fake(code: str) -> dict[str, Any]:
    """A parser that was taken over: it runs ``code``."""
    return {"command": (sys.executable, "-c", f"import sys, os, time, json; request = json.loads(sys.stdin.readline()); {code}")}


def test_a_document_has_the_name_it_was_sent_with(tmp_path: Path) -> None:
    (document,) = parsed(tmp_path, "手册/b.txt", b"Suits last.")
    assert document == Document("手册/b.txt", "Suits last.", "b", "手册/b.txt")
    (document,) = parsed(tmp_path, "b.md", b"# Suits\n\nThey last.")
    assert (document.title, document.format) == ("Suits", "markdown")
    rows = parsed(tmp_path, "t.csv", b"id,text,year\n7,one,1999\n8,two,2000\n")
    assert [(row.id, row.text) for row in rows] == [("t.csv#7", "one"), ("t.csv#8", "two")]
    assert rows[0].metadata["year"] in (1999, "1999")


def test_word_and_pdf_are_read(tmp_path: Path) -> None:
    assert "Suits" in parsed(tmp_path, "a.docx", docx(paragraph(b"Suits last")))[0].text
    assert parsed(tmp_path, "a.pdf", pdf())[0].text == "Suits last 90 minutes"


def test_a_script_in_a_pdf_is_not_run_and_not_text(tmp_path: Path) -> None:
    (document,) = parsed(tmp_path, "a.pdf", pdf(script="app.launchURL\\('http://10.0.0.7'\\)"))
    assert document.text == "Suits last 90 minutes"
    assert "launchURL" not in str(document)


HOSTILE = {
    "bomb.docx": (zip_bomb, "would unpack to"),
    "laughs.docx": (billion_laughs, "document type|entity"),
    "circular.pdf": (lambda: pdf(circular=True), "damaged|no text"),
    "page.pdf": (lambda: b"<!doctype html><html><script>alert(1)</script></html>", "HTML page"),
    "nul.txt": (lambda: b"a\0b\0c", "binary"),
    "empty.txt": (lambda: b"", "empty"),
    "deep.jsonl": (lambda: b"[" * 100_000, "line 1"),
    "program.exe": (lambda: b"MZ", "no reader"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_with_a_reason(tmp_path: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    data, before, started = make(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ReadError, match=reason) as refused:
        parsed(tmp_path, name, data)
    assert time.monotonic() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes, in this process
    assert str(tmp_path) not in str(refused.value)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A file that keeps to every limit of its reader and still takes hundreds of megabytes."""
    data = many_paragraphs(150_000)
    assert len(parsed(tmp_path, "a.docx", data)[0].text) > 500_000
    with pytest.raises(ReadError, match=r"MemoryError|memory|not a readable Word document"):
        parsed(tmp_path, "a.docx", data, ParserLimits(memory=120_000_000))


def test_time_is_bounded_by_the_clock_and_by_the_processor(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ReadError, match=r"longer than 0\.3 seconds"):
        parsed(tmp_path, "a.txt", b"x", ParserLimits(seconds=0.3), **fake("time.sleep(60)"))
    with pytest.raises(ReadError, match=r"longer than 0\.05 seconds"):
        parsed(tmp_path, "a.txt", b"x", ParserLimits(seconds=0.05))
    assert time.monotonic() - started < 10
    with pytest.raises(ReadError, match="1 seconds of computing"):  # the real process, with a file that keeps it busy
        parsed(tmp_path, "a.docx", many_paragraphs(1_000_000), ParserLimits(cpu_seconds=1))


def test_what_a_process_started_dies_with_it(tmp_path: Path) -> None:
    started = "import subprocess; child = subprocess.Popen(['sleep', '60'])"
    code = f"{started}; open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    with pytest.raises(ReadError, match="longer than"):
        parsed(tmp_path, "a.txt", b"x", ParserLimits(seconds=2), **fake(code))
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("the grandchild still runs")


def test_the_output_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="more than 10,000 bytes"):
        parsed(tmp_path, "a.txt", b"word " * 4_000, ParserLimits(output=10_000))
    with pytest.raises(ReadError, match="more than 3 documents"):
        parsed(tmp_path, "t.csv", b"text\n" + b"row\n" * 4, ParserLimits(documents=3))


def test_no_key_reaches_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HOME", "/home/secret")
    (document,) = parsed(tmp_path, "a.txt", b"x", **fake('print(json.dumps({"id": "a.txt", "text": json.dumps(dict(os.environ))}))'))
    assert "secret" not in document.text
    assert json.loads(document.text)["LANG"] == "C.UTF-8"


def test_the_process_gives_its_rights_away(tmp_path: Path) -> None:
    code = (
        "from rag.serve.documents import parser_child as c; import resource as r; c._bind(request);"
        "print(json.dumps({'id': 'a.txt', 'text': json.dumps([r.getrlimit(getattr(r, 'RLIMIT_' + n)) for n in "
        "('AS', 'CPU', 'FSIZE', 'NOFILE', 'CORE')])}))"
    )
    (document,) = parsed(tmp_path, "a.txt", b"x", ParserLimits(cpu_seconds=7), **fake(code))
    assert json.loads(document.text) == [[1_000_000_000] * 2, [7, 8], [64_000_000] * 2, [64] * 2, [0] * 2]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('not json')", "cannot be kept"),
        ("print(json.dumps({'id': 'other.txt', 'text': 'x'}))", "not of this file"),
        ("print(json.dumps({'id': 'a.txtx', 'text': 'x'}))", "not of this file"),
        ("print(json.dumps({'id': 'a.txt', 'text': 'a' + chr(0)}))", "NUL"),
        ("print(json.dumps({'id': 'a.txt', 'text': 'x', 'format': 'html'}))", "format"),
        ("print(json.dumps({'id': 'a.txt', 'text': 'x', 'extra': 1}))", "extra"),
        ("print(json.dumps({'id': 'a.txt', 'text': 7}))", "text"),
        ("print(json.dumps({'id': 'a.txt', 'text': 'x', 'metadata': {'a': {'b': 1}}}))", "metadata"),
        ('print(\'{"id": "a.txt", "text": "x", "metadata": {"a": NaN}}\')', "cannot be kept"),
        ("print(json.dumps({'id': 'a.txt#' + 'x' * 2000, 'text': 'x'}))", "id"),
        ("os.abort()", "broke its parser"),
        ("sys.exit(1)", "broke its parser"),
        ("print('x', file=sys.stderr); sys.exit(10)", "gave no reason"),
        ("print('x' * 10**7, file=sys.stderr); sys.exit(10)", "gave no reason"),
    ],
)
def test_nothing_that_it_says_is_believed(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        parsed(tmp_path, "a.txt", b"x", **fake(code))


def test_a_full_disk_is_not_the_fault_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        parsed(tmp_path, "a.txt", b"x", **fake(f"sys.exit({parser_child.DISK_FULL})"))


def test_a_cancelled_parse_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    file = spool.create()
    pid = tmp_path / "pid"
    parser = Parser(spool, **fake(f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"))

    async def scenario() -> None:
        task = asyncio.create_task(parser.parse("a", file))
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert list(spool.folder.iterdir()) == [file.path]


def test_limits_are_checked() -> None:
    with pytest.raises(InputError, match="seconds"):
        ParserLimits(seconds=0)
