"""The corpus file that HippoRAG (Gutiérrez et al., 2024) puts beside a multi-hop set: NAME_corpus.json beside NAME.json."""

from __future__ import annotations

from collections.abc import Sequence

from rag.core.errors import InputError
from rag.evaluate.datasets.draft import Shelf
from rag.evaluate.datasets.record import Record
from rag.evaluate.datasets.source import Source


def corpus_beside(source: Source) -> Shelf | None:
    """The passages of NAME_corpus.json: {title: [sentence]} or [{title, text}]. None if there is no such file."""
    file = source.beside(f"{source.name}_corpus.json")
    if file is None:
        return None
    shelf = Shelf()
    file.expect("corpus", "{title: [sentence, …]} or [{title, text}]")
    content = file.content()
    if isinstance(content, dict):
        for title in content:
            shelf.put(_sentences(file.top(), title), title=title)
    else:
        for record in file.records():
            shelf.put(record.text("text"), title=record.text("title", default=""))
    if not shelf.passages():
        raise InputError(f"{file.path}: the corpus holds no passage")
    return shelf


def joined(sentences: Sequence[str]) -> str:
    """Sentences as one text; HotpotQA's begin with their space, 2WikiMultihopQA's do not."""
    text = ""
    for sentence in sentences:
        text += sentence if not text or text[-1].isspace() or sentence[:1].isspace() else f" {sentence}"
    return text.strip()


def _sentences(corpus: Record, title: str) -> str:
    sentences = corpus.items(title)
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise corpus.bad(f"'{title}' must be a list of texts")
    return joined(sentences)
