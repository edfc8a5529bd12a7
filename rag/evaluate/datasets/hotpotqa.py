"""HotpotQA (Yang et al., 2018) and 2WikiMultihopQA (Ho et al., 2020), of one form: ten paragraphs a question, supporting sentences."""

from __future__ import annotations

from rag.evaluate.datasets.corpus_file import corpus_beside, joined
from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question

_FIELDS = "_id, question, answer, type, supporting_facts: [[title, sentence number]], context: [[title, [sentence]]]"
_2WIKI = ("compositional", "inference", "bridge_comparison")


def _is_form(source: Source) -> bool:
    return {"question", "supporting_facts", "context"} <= source.first().keys()


def _recognises_hotpotqa(source: Source) -> bool:
    return _is_form(source) and not _recognises_2wiki(source)


def _recognises_2wiki(source: Source) -> bool:
    return _is_form(source) and ("evidences" in source.first() or source.first().get("type") in _2WIKI)


@data_format(
    "hotpotqa",
    what="HotpotQA: questions over two Wikipedia paragraphs (gold: the supporting ones)",
    files="the official JSON; NAME_corpus.json beside it, where there is one, is the corpus",
    fields=_FIELDS,
    licence="CC BY-SA 4.0",
    metrics=("exact_match", "f1"),
    recognises=_recognises_hotpotqa,
)
def read_hotpotqa(source: Source) -> Draft:
    """``kind`` is bridge or comparison; without a corpus file, all questions' paragraphs together are the corpus."""
    shelf = corpus_beside(source)
    fixed = shelf is not None
    shelf = shelf or Shelf()
    return Draft([_question(record, shelf, fixed) for record in source.records()], shelf.passages(), language="en")


@data_format(
    "2wikimultihopqa",
    what="2WikiMultihopQA: questions over two to four Wikipedia paragraphs (gold: the supporting ones)",
    files="the official JSON; NAME_corpus.json beside it, where there is one, is the corpus",
    fields=f"{_FIELDS}, evidences: [[subject, relation, object]]",
    licence="Apache-2.0",
    metrics=("exact_match", "f1"),
    recognises=_recognises_2wiki,
)
def read_2wikimultihopqa(source: Source) -> Draft:
    """The same form as HotpotQA; ``kind`` is compositional, comparison, inference or bridge_comparison."""
    return read_hotpotqa(source)


def _question(record: Record, shelf: Shelf, fixed: bool) -> Question:
    own: dict[str, str] = {}
    for title, sentences in _context(record):
        text = joined(sentences)
        own[title] = (shelf.find(text, title) or title) if fixed else shelf.put(text, title=title)
    titles = tuple(dict.fromkeys(_supporting(record)))
    return Question(
        id=record.name("_id", "id"),
        question=record.filled("question"),
        answers=record.texts("answer"),
        gold=tuple(own.get(title, title) for title in titles),
        kind=record.text("type", default=""),
        metadata={"level": record.text("level", default=""), "passages": tuple(own.values())},
    )


def _context(record: Record) -> list[tuple[str, list[str]]]:
    """(title, sentences) of each paragraph; the hub has two parallel lists instead."""
    if isinstance(record.value("context"), dict):
        columns = record.record("context")
        pairs: list[object] = [list(pair) for pair in zip(columns.items("title"), columns.items("sentences"), strict=False)]
    else:
        pairs = record.items("context")
    found = []
    for pair in pairs:
        match pair:
            case [str() as title, list() as sentences] if all(isinstance(s, str) for s in sentences):
                found.append((title, sentences))
            case _:
                raise record.bad("'context' must be a list of [title, [sentence]]")
    return found


def _supporting(record: Record) -> list[str]:
    if isinstance(record.value("supporting_facts"), dict):
        return list(record.record("supporting_facts").texts("title"))
    facts = record.items("supporting_facts")
    if not all(isinstance(fact, (list, tuple)) and len(fact) == 2 and isinstance(fact[0], str) for fact in facts):
        raise record.bad("'supporting_facts' must be a list of [title, sentence number]")
    return [fact[0] for fact in facts]
