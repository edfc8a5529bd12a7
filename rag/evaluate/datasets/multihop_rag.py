"""MultiHop-RAG (Tang and Yang, 2024): questions over several news articles, some of which nothing answers."""

from __future__ import annotations

from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question

_FILE = "MultiHopRAG.json"


def _recognises(source: Source) -> bool:
    if source.is_zip():
        return False
    if source.is_folder():
        return (source.path / _FILE).is_file()
    return {"query", "answer", "question_type", "evidence_list"} <= source.first().keys()


@data_format(
    "multihop_rag",
    what="MultiHop-RAG: questions over two to four news articles, some unanswerable (gold: the articles of the evidence)",
    files=f"{_FILE} or its folder; corpus.json beside it is the corpus",
    fields="query, answer, question_type, evidence_list: [{title, url, fact}]; corpus.json: [{title, url, body}]",
    licence="ODC-By 1.0",
    metrics=("match", "exact_match", "f1"),
    recognises=_recognises,
)
def read_multihop_rag(source: Source) -> Draft:
    """A question's id is its number in the file, from 1; a null_query is unanswerable: refusing is right."""
    records = (source.beside(_FILE) or source).records() if source.is_folder() else source.records()
    shelf, articles = Shelf(), source.beside("corpus.json")
    known: dict[str, str] = {}
    for article in articles.records() if articles else []:
        title, publisher = article.text("title", default=""), article.text("source", default="")
        known[article.text("url", "title")] = shelf.put(article.text("body"), title=title, metadata={"source": publisher})
    notes = [] if articles else ["there is no corpus.json beside it: no passages, gold ids are the articles' addresses"]
    return Draft([_question(n, record, known) for n, record in enumerate(records, start=1)], shelf.passages(), language="en", notes=notes)


def _question(n: int, record: Record, known: dict[str, str]) -> Question:
    kind = record.text("question_type")
    answerable = kind != "null_query"
    evidence = [item.text("url", "title") for item in record.records("evidence_list", default=[])]
    return Question(
        id=str(n),
        question=record.filled("query"),
        answers=record.texts("answer") if answerable else (),
        gold=tuple(dict.fromkeys(known.get(address, address) for address in evidence)),
        answerable=answerable,
        kind=kind,
    )
