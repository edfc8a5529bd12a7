"""BEIR folders (Thakur et al., 2021): a corpus, queries and judged pairs."""

from __future__ import annotations

from rag.core.errors import InputError
from rag.core.types import Passage
from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question

_SPLITS = ("qrels/test.tsv", "qrels/dev.tsv", "qrels/train.tsv")


def _recognises(source: Source) -> bool:
    return source.is_folder() and all((source.path / name).exists() for name in ("corpus.jsonl", "queries.jsonl", "qrels"))


@data_format(
    "beir",
    what="any set in BEIR's layout: retrieval with judged pairs, no answers",
    files="a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv (else dev.tsv, train.tsv)",
    fields="corpus.jsonl: _id, title?, text; queries.jsonl: _id, text; qrels: query-id, corpus-id, score",
    licence="that of the set",
    metrics=("ndcg@10", "recall@10", "recall@100"),
    recognises=_recognises,
)
def read_beir(source: Source) -> Draft:
    """The judged queries are the questions; ``gold`` has the pairs with a score above 0, ``grades`` all of them."""
    corpus, queries, judged = (source.beside(*names) for names in (("corpus.jsonl",), ("queries.jsonl",), _SPLITS))
    if corpus is None or queries is None or judged is None:
        raise InputError(f"{source.path}: not a BEIR folder; it needs corpus.jsonl, queries.jsonl and one of {', '.join(_SPLITS)}")
    passages: dict[str, Passage] = {}
    for record in corpus.records():
        id = record.name("_id")
        if id in passages:
            raise record.bad(f"the passage id '{id}' is given more than once")
        passages[id] = Passage(id, record.text("text"), title=record.text("title", default=""))
    qrels: dict[str, dict[str, int]] = {}
    for row in judged.records():
        qrels.setdefault(row.name("query-id"), {})[row.name("corpus-id")] = grade(row.text("score"), row.where)
    questions = [
        Question(id, record.filled("text"), gold=tuple(p for p, g in qrels[id].items() if g > 0), grades=qrels[id])
        for record in queries.records()
        if (id := record.name("_id")) in qrels
    ]
    lost = sorted(qrels.keys() - {question.id for question in questions})
    notes = [f"judged pairs: {judged.path.name}"]
    if lost:
        are = "judged query is not in queries.jsonl and is" if len(lost) == 1 else "judged queries are not in queries.jsonl and are"
        notes.append(f"{len(lost):,} {are} left out: {', '.join(lost[:5])}")
    return Draft(questions, list(passages.values()), notes=notes, answers=False)


def grade(text: str, where: str) -> int:
    """A relevance grade. Raises `InputError` where it is no whole number."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: the relevance grade must be a whole number, not {text!r}") from None
