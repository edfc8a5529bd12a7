"""StrategyQA (Geva et al., 2021): yes/no questions whose steps are implied, with the facts that settle them."""

from __future__ import annotations

from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    first = source.first()
    return {"qid", "question", "facts"} <= first.keys() or (isinstance(first.get("answer"), bool) and "facts" in first)


@data_format(
    "strategyqa",
    what="StrategyQA: yes/no questions with implied steps (gold: the annotators' facts, which are the passages)",
    files="one JSON file, such as dev.json",
    fields="qid, question, answer (true or false), facts (list of texts), decomposition (list of texts)",
    licence="MIT",
    metrics=("yes_no",),
    recognises=_recognises,
)
def read_strategyqa(source: Source) -> Draft:
    """The facts of all questions are the corpus; ``kind`` is the number of steps."""
    shelf = Shelf()
    return Draft([_question(record, shelf) for record in source.records()], shelf.passages(), language="en")


def _question(record: Record, shelf: Shelf) -> Question:
    id = record.name("qid")
    facts = [shelf.put(fact, id=f"{id}:{n}") for n, fact in enumerate(record.texts("facts"), start=1)]
    steps = record.texts("decomposition", default=[])
    return Question(
        id=id,
        question=record.filled("question"),
        answers=("yes" if record.flag("answer") else "no",),
        gold=tuple(facts),
        kind=f"{len(steps)} steps" if len(steps) != 1 else "1 step",
        metadata={"steps": steps, "term": record.text("term", default="")},
    )
