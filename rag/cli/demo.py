"""``rag demo``: the handbook of the examples, indexed once, and three questions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli.options import EngineOption, KeyOption, ModelOption, UrlOption, make_model
from rag.core.errors import InputError

if TYPE_CHECKING:
    from retrievers.corpus import Corpus

QUESTIONS = (
    "How long may a suit be worn outside?",  # safety/suits.md
    "How long does the descent in the capsule take?",  # travel/capsule.html
    "How many kilograms can the Limpet lift?",  # safety/limpet.pdf
)
"""One answered by a Markdown page, one by an HTML page, one by a PDF (q001, q045 and q053 of examples/handbook/questions.jsonl)."""


def demo(
    docs: Annotated[Path | None, typer.Option(help="Folder of documents instead of the example handbook.", show_default=False)] = None,
    engine: EngineOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    model_key_env: KeyOption = None,
) -> None:
    """Index a small handbook and answer three questions from it, on this machine alone.

    Example:  rag demo
    """
    from rag.cli.console import err, out
    from rag.cli.default_pipeline import build, retriever_for
    from rag.cli.show import show_sources, stream_answer

    folder = _docs(docs)
    corpus = _indexed(folder, _place())
    pipe = build(corpus, make_model(engine, url, model, model_key_env), retriever_for(corpus), max_tokens=96)
    screen = out()
    for question in QUESTIONS:
        screen.print(f"\n[bold]> {question}[/bold]")
        _, answer = stream_answer(pipe, question, {})
        show_sources(answer)
    err().print(f"\nAsk more:  rag ask --corpus {corpus.path}", markup=False, soft_wrap=True)


def _docs(given: Path | None) -> Path:
    if given is not None:
        if not given.is_dir():
            raise InputError(f"--docs {given}: there is no such folder")
        return given
    import rag

    folder = Path(rag.__file__).resolve().parent.parent / "examples" / "handbook" / "docs"
    if not folder.is_dir():
        raise InputError(
            "the example handbook is not part of the installed package; clone the repository and run `rag demo` there,"
            " or give --docs FOLDER"
        )
    return folder


def _place() -> Path:
    """``.demo`` here, or in the user's cache where this folder cannot be written."""
    if os.access(".", os.W_OK):
        return Path(".demo")
    import platformdirs

    return Path(platformdirs.user_cache_dir("graft")) / "demo"


def _indexed(docs: Path, place: Path) -> Corpus:
    """The corpus of ``docs``, brought up to date; nothing is encoded again that has not changed."""
    from rag.cli.console import err
    from rag.cli.indexing import describe_outcome, index_files, sources
    from retrievers.corpus import Corpus

    files, root = sources([docs], place)
    out = place / "handbook"
    corpus = Corpus.open(out) if Corpus.exists(out) else Corpus.create(out)
    account = describe_outcome(index_files(corpus, files, root, strict=False, prune=True), corpus)
    err().print(f"{account['documents']} documents, {account['passages']} passages in {out} ({account['seconds']:.1f} s)", markup=False)
    return corpus
