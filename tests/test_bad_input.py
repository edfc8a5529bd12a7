"""What people really hand over, through the command they type: one clear line and exit code 2, or a counted skip; nothing is lost."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from generators.cited import cited_prompt
from rag import BM25, Cited, Corpus, Document, Passage, Pipeline
from tests.generators.conftest import ScriptedModel
from tests.rag.cli.conftest import Rag

SUITS = "# Suits\n\nA suit may be worn outside for 90 minutes. It is checked by two people.\n"
MIXED = "Die Prüfung ist täglich. Größere Überzüge für Füße.\n".encode() * 3 + "Die Prüfung ist täglich.\n".encode("latin-1")


def encrypted_pdf() -> bytes:
    from io import BytesIO

    from fpdf import FPDF
    from pypdf import PdfReader, PdfWriter

    page = FPDF()
    page.add_page()
    page.set_font("helvetica")
    page.cell(text="A secret page.")
    writer = PdfWriter(clone_from=PdfReader(BytesIO(bytes(page.output()))))
    writer.encrypt("password", algorithm="RC4-128")
    locked = BytesIO()
    writer.write(locked)
    return locked.getvalue()


BAD_FILES = {
    "empty.txt": (b"", "is empty"),
    "blank.md": (b" \n\n\t", "is empty"),
    "binary.txt": (bytes(range(256)) * 20, "is binary"),
    "mixed.txt": (MIXED, "is UTF-8 up to line 4"),
    "page.pdf": (b"<html><body>moved</body></html>", "is an HTML page, not a PDF"),
    "locked.pdf": (encrypted_pdf(), "is protected by a password"),
    "torn.docx": (b"PK\x03\x04torn", "is not a readable Word document"),
    "torn.jsonl": (b'{"text": "fine"}\n{"text": \n', "line 2"),
    "program.bin": (b"\x7fELF", "there is no reader for .bin files"),
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "suits.md").write_text(SUITS)
    return folder


@pytest.fixture
def shelf(docs: Path, tmp_path: Path) -> Path:
    assert Rag()("index", docs, "--out", tmp_path / "shelf", "--encoder", "none").exit_code == 0
    return tmp_path / "shelf"


def refused(*arguments: str | Path, input: str | None = None) -> str:
    """The one line that the command says; its exit code must be 2."""
    result = Rag()(*arguments, input=input)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


# -- files -----------------------------------------------------------------------------------------------------------------------


def test_every_bad_file_is_named_with_its_reason_and_counted(docs: Path, tmp_path: Path) -> None:
    for name, (content, _) in BAD_FILES.items():
        (docs / name).write_bytes(content)
    (docs / "dangling.md").symlink_to("nowhere.md")
    result = Rag()("index", docs, "--out", tmp_path / "new", "--encoder", "none")
    assert result.exit_code == 0
    assert f"{len(BAD_FILES) + 2} found, {len(BAD_FILES) + 1} skipped" in result.stdout
    for name, (_, reason) in BAD_FILES.items():
        assert f"skipped {docs / name}: {reason}" in result.stdout
    assert f"skipped {docs / 'dangling.md'}: cannot be opened" in result.stdout
    assert [document.id for document in Corpus.open(tmp_path / "new").documents() if document.id == "suits.md"] == ["suits.md"]


@pytest.mark.parametrize("name", BAD_FILES)
def test_strict_makes_a_bad_file_an_error(docs: Path, tmp_path: Path, name: str) -> None:
    (docs / name).write_bytes(BAD_FILES[name][0])
    said = refused("index", docs, "--out", tmp_path / "new", "--encoder", "none", "--strict")
    assert said.startswith(f"error: {docs / name}: {BAD_FILES[name][1]}")


def test_a_file_that_became_bad_keeps_what_the_corpus_had(docs: Path, shelf: Path) -> None:
    (docs / "suits.md").write_bytes(MIXED)
    (docs / "more.md").write_text("Supper is at six.")
    assert Rag()("index", docs, "--out", shelf).exit_code == 0
    assert sorted(document.id for document in Corpus.open(shelf).documents()) == ["more.md", "suits.md"]


def test_a_missing_file(tmp_path: Path) -> None:
    assert f"{tmp_path / 'no.md'}: " in refused("index", tmp_path / "no.md", "--out", tmp_path / "new")


def test_an_out_folder_that_cannot_be_made(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused("index", docs, "--out", tmp_path / "file" / "new", "--encoder", "none")


# -- the corpus ------------------------------------------------------------------------------------------------------------------


def ask(shelf: Path, *more: str) -> str:
    """Retrieval comes before the model, so an address where nobody answers is never asked."""
    return refused("ask", "How long may a suit be worn?", "--corpus", shelf, "--engine", "vllm", "--url", "http://127.0.0.1:9/v1", *more)


def test_a_corpus_of_another_version(shelf: Path, docs: Path) -> None:
    with sqlite3.connect(shelf / "corpus.sqlite3") as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    database.close()
    assert "format version 99" in ask(shelf)
    assert "format version 99" in refused("index", docs, "--out", shelf)


def test_a_corpus_of_another_encoder(shelf: Path, docs: Path) -> None:
    assert "without an encoder" in ask(shelf, "--retriever", "dense")
    assert "encoder" in refused("index", docs, "--out", shelf, "--encoder", "minilm")


def test_a_damaged_segment(shelf: Path) -> None:
    file = next(shelf.rglob("terms.counts.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    said = ask(shelf)
    assert f"{file}: its SHA-256 is" in said
    assert "index again" in said


def test_a_full_disk_loses_nothing_that_was_committed(docs: Path, shelf: Path) -> None:
    (docs / "big.txt").write_text("\n\n".join(f"Paragraph {n} says word{n} and word{n + 1} again." for n in range(20_000)))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY));"
        "from rag.cli.main import main; sys.argv = ['rag', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-c", code, "index", str(docs), "--out", str(shelf)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert "disk is full or a size limit" in result.stderr
    Corpus.open(shelf).verify()
    assert "suits.md" in {document.id for document in Corpus.open(shelf).documents()}
    assert Rag()("index", docs, "--out", shelf).exit_code == 0
    assert {document.id for document in Corpus.open(shelf).documents()} == {"big.txt", "suits.md"}


def test_a_second_writer(shelf: Path, docs: Path) -> None:
    with Corpus.open(shelf).writer():
        assert "is writing" in refused("index", docs, "--out", shelf)
    assert Rag()("index", docs, "--out", shelf).exit_code == 0


# -- questions -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", ["0", "-1", "x"])
def test_k_below_one(shelf: Path, tmp_path: Path, k: str) -> None:
    result = Rag()("ask", "How long?", "--corpus", shelf, "-k", k)
    assert (result.exit_code, "-k" in result.stderr) == (2, True)
    (tmp_path / "p.yaml").write_text(f"nodes: {{a: {{type: BM25, corpus: {{type: Corpus, path: {shelf}}}, k: {k}}}}}")
    assert "(BM25): k, the number of hits, must be" in refused("ask", "How long?", "--pipeline", tmp_path / "p.yaml")


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question(shelf: Path, question: str) -> None:
    assert "the question is empty" in refused("ask", question, "--corpus", shelf)


def test_an_over_long_question(shelf: Path) -> None:
    assert "shorten it" in refused("ask", "-", "--corpus", shelf, input="suit " * 30_000)


def test_a_question_in_another_encoding(shelf: Path) -> None:
    command = [sys.executable, "-m", "rag.cli.main", "ask", "-", "--corpus", str(shelf)]
    result = subprocess.run(command, input="Größe".encode("latin-1"), capture_output=True, check=False)
    assert (result.returncode, b"use UTF-8" in result.stderr) == (2, True)


def test_a_prompt_past_the_window_drops_passages_from_the_tail_and_the_trace_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.create(tmp_path / "shelf", encoder=None)
    corpus.add([Document(f"d{n}", "A suit may be worn outside. " + "Padding fills the page. " * 30) for n in range(4)])
    model = ScriptedModel("Outside [1].", window=500)
    monkeypatch.setattr("rag.cli.ask.make_model", lambda *_: model)
    result = Rag()("ask", "May a suit be worn outside?", "--corpus", tmp_path / "shelf", "--max-tokens", "20", "--json", "--trace")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    found = [hit.passage.id for hit in BM25(corpus, k=4).search("May a suit be worn outside?")]
    kept = [source["id"] for source in told["sources"]]
    assert 0 < len(kept) < 4
    assert kept == found[: len(kept)]
    noted = [note for node in told["trace"]["children"] for note in node["notes"]]
    for dropped in found[len(kept) :]:
        assert any(f"'{dropped}'" in note and note.startswith("dropped") for note in noted)
        assert any(f"'{dropped}'" in note for note in told["notes"])


@pytest.mark.parametrize(("spare", "says"), [(0, "not even the best passage"), (-1, "the question is too long")])
def test_a_prompt_that_holds_no_passage(shelf: Path, monkeypatch: pytest.MonkeyPatch, spare: int, says: str) -> None:
    question = "How long may a suit be worn outside?"
    bare = asyncio.run(ScriptedModel().acount(cited_prompt(question, [], "en")))
    monkeypatch.setattr("rag.cli.ask.make_model", lambda *_: ScriptedModel("x", window=bare + 20 + spare))
    assert says in refused("ask", question, "--corpus", shelf, "--max-tokens", "20")


# -- pipeline files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nodes: {a: {type: BM26}}", "nodes.a: there is no component 'BM26'; known are: "),
        ("nodes: {a: {type: Fuse, kk: 3}}", "nodes.a (Fuse): unknown key 'kk'; allowed are: k, method, weights, constant"),
        ("nodes: {a: {type: BM25, corpus: shelf}}", "'corpus' takes a component (Corpus), not 'shelf'"),
        ("nodes: {a: {type: Rerank}, b: {type: Rerank}}\nedges: [a -> c.hits]", "there is no node 'c' (in 'c.hits')"),
        ("nodes: {a: {type: Rerank}, b: {type: Rerank}}\nedges: [a -> b.hats]", "'b.hats' does not exist; ports of 'b' are: "),
        ("nodes: {a: {type: Rerank}, b: {type: Rerank}}\nedges: [a -> b.query]", "'a' gives list[Hit], which does not fit"),
        (
            "nodes: {a: {type: Rerank}, b: {type: Rerank}, c: {type: Rerank}}\nedges: [a -> c.hits, b -> c.hits]",
            "the port is connected already (a -> c.hits)",
        ),
    ],
)
@pytest.mark.parametrize("command", ["ask", "draw", "serve"])
def test_a_wrong_pipeline_file(tmp_path: Path, command: str, text: str, says: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    said = refused(*(["ask", "How long?", "--pipeline"] if command == "ask" else [command]), file)
    assert said.startswith(f"error: {file}: ")
    assert says in said


# -- the model's server ----------------------------------------------------------------------------------------------------------


class Failing(BaseHTTPRequestHandler):
    """Answers everything with 503, or not at all."""

    asked = 0
    hold: threading.Event | None = None

    def do_POST(self) -> None:
        type(self).asked += 1
        if self.hold is not None:
            self.hold.wait(10)
        body = b'{"error": {"message": "the engine is dead"}}'
        self.send_response(503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=["answers 5xx", "is slow"])
def failing(request: pytest.FixtureRequest) -> Iterator[tuple[str, type[Failing], str]]:
    slow = request.param == "is slow"
    handler = type("Handler", (Failing,), {"asked": 0, "hold": threading.Event() if slow else None})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler, "SocketTimeoutError" if slow else "HTTP 503: the engine is dead"
        if handler.hold is not None:
            handler.hold.set()
        server.shutdown()
        thread.join()


def served_by(url: str, shelf: Path, folder: Path) -> Path:
    file = folder / "p.yaml"
    model = f"{{type: VLLM, url: '{url}/v1', model: m, timeout: 0.3, retries: 1}}"
    file.write_text(
        f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {shelf}}}}}\n  answer: {{type: Cited, model: {model}}}\n"
        "edges: [search -> answer.retriever]\n"
    )
    return file


def test_a_model_server_that_fails_is_tried_again_and_named(failing: tuple[str, type[Failing], str], shelf: Path, tmp_path: Path) -> None:
    url, handler, reason = failing
    said = refused("ask", "How long may a suit be worn?", "--pipeline", served_by(url, shelf, tmp_path))
    assert f"the model server at {url} did not answer in 2 attempts; the last failure: {reason}" in said
    assert handler.asked == 2


def test_a_model_server_that_is_down_is_named(shelf: Path, tmp_path: Path) -> None:
    file = served_by("http://127.0.0.1:9", shelf, tmp_path)
    assert "the model server at http://127.0.0.1:9 did not answer in 2 attempts" in refused("ask", "suit", "--pipeline", file)


def test_one_failed_question_of_many_leaves_the_others_whole(shelf: Path) -> None:
    pipe = Pipeline().add("search", BM25(Corpus.open(shelf), k=1)).add("answer", Cited(ScriptedModel("90 minutes [1].")))
    pipe.connect("search", "answer.retriever")
    runs = pipe.map(["How long may a suit be worn?", "", "suit " * 30_000, "Who checks a suit?"])
    assert [run.ok for run in runs] == [True, False, False, True]
    assert isinstance(runs[0].value.sources[0].passage, Passage)
