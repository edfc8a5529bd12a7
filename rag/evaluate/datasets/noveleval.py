"""NovelEval-2306 (Sun et al., 2023): graded listwise reranking of 20 passages on questions newer than the models of its day."""

from __future__ import annotations

from rag.core.errors import InputError
from rag.core.types import Passage
from rag.evaluate.datasets.beir import grade
from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.source import Source, read_text
from rag.evaluate.types import Question

_CORPUS, _QUERIES, _QRELS = "corpus.tsv", "queries.tsv", "qrels.txt"


def _recognises(source: Source) -> bool:
    return source.is_folder() and all((source.path / name).is_file() for name in (_CORPUS, _QUERIES, _QRELS))


@data_format(
    "noveleval",
    what="NovelEval: 21 questions with 20 graded passages each, for reranking; no answers",
    files=f"a folder with {_CORPUS}, {_QUERIES} and {_QRELS}",
    fields=f"{_CORPUS}: id, tab, text; {_QUERIES}: id, tab, text; {_QRELS}: query Q0 passage grade",
    licence="Apache-2.0",
    metrics=("ndcg@1", "ndcg@5", "ndcg@10"),
    recognises=_recognises,
)
def read_noveleval(source: Source) -> Draft:
    """``gold`` are the passages graded 1 or 2; ``metadata["passages"]`` all that were judged for the question, in the file's order."""
    if not _recognises(source):
        raise InputError(f"{source.path}: not NovelEval; that is a folder with {_CORPUS}, {_QUERIES} and {_QRELS}")
    passages = [Passage(id, text) for id, text in _table(source, _CORPUS)]
    qrels = _judged(source)
    questions = [
        Question(id, text, gold=tuple(p for p, g in qrels[id].items() if g > 0), grades=qrels[id], metadata={"passages": tuple(qrels[id])})
        for id, text in _table(source, _QUERIES)
        if id in qrels
    ]
    return Draft(questions, passages, language="en", answers=False)


def _table(source: Source, name: str) -> list[tuple[str, str]]:
    """(id, text) of each line; the text may hold tabs."""
    rows = []
    for n, line in enumerate(read_text(source.path / name).split("\n"), start=1):
        id, tab, text = line.rstrip("\r").partition("\t")
        if line.strip() and not (tab and id.strip() and text.strip()):
            raise InputError(f"{source.path / name}, line {n}: expected an id, a tab and a text: {line[:120]!r}")
        if line.strip():
            rows.append((id.strip(), text.strip()))
    return rows


def _judged(source: Source) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for n, line in enumerate(read_text(source.path / _QRELS).split("\n"), start=1):
        where = f"{source.path / _QRELS}, line {n}"
        match line.split():
            case []:
                continue
            case [query, _, passage, score]:
                qrels.setdefault(query, {})[passage] = grade(score, where)
            case _:
                raise InputError(f"{where}: expected 'query Q0 passage grade': {line[:120]!r}")
    return qrels
