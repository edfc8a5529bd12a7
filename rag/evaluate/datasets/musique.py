"""MuSiQue (Trivedi et al., 2022): questions composed of two to four single-hop ones, twenty paragraphs each."""

from __future__ import annotations

from rag.evaluate.datasets.corpus_file import corpus_beside
from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record, distinct
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    return {"question", "question_decomposition", "paragraphs"} <= source.first().keys()


@data_format(
    "musique",
    what="MuSiQue: questions composed of two to four hops, the full set with unanswerable twins (gold: supporting paragraphs)",
    files="the official JSON Lines, or JSON; NAME_corpus.json beside it, where there is one, is the corpus",
    fields="id, question, answer, answer_aliases, answerable, paragraphs: [{title, paragraph_text, is_supporting}], question_decomposition",
    licence="CC BY 4.0",
    metrics=("exact_match", "f1"),
    recognises=_recognises,
)
def read_musique(source: Source) -> Draft:
    """``kind`` is the number of hops ("2hop"). The full set asks each question twice under one id: the unanswerable twin gets a suffix."""
    shelf = corpus_beside(source)
    fixed = shelf is not None
    shelf = shelf or Shelf()
    return Draft([_question(record, shelf, fixed) for record in source.records()], shelf.passages(), language="en")


def _question(record: Record, shelf: Shelf, fixed: bool) -> Question:
    own: list[str] = []
    gold: list[str] = []
    for paragraph in record.records("paragraphs"):
        title, text = paragraph.text("title"), paragraph.text("paragraph_text")
        id = (shelf.find(text, title) or title) if fixed else shelf.put(text, title=title)
        own.append(id)
        if paragraph.flag("is_supporting", default=False):
            gold.append(id)
    answerable = record.flag("answerable", default=True)
    id = record.name("id")
    steps = tuple(step.text("question", default="") for step in record.records("question_decomposition"))
    return Question(
        id=id if answerable else f"{id} (unanswerable)",
        question=record.filled("question"),
        answers=distinct(iter([record.text("answer"), *record.texts("answer_aliases", default=[])])) if answerable else (),
        gold=tuple(dict.fromkeys(gold)),
        answerable=answerable,
        kind=id[:4] if id[1:4] == "hop" else f"{len(steps)}hop",
        metadata={"steps": steps, "passages": tuple(own)},
    )
