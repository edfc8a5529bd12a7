"""TriviaQA (Joshi et al., 2017): trivia questions with many aliases; the evidence documents are not read."""

from __future__ import annotations

from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record, distinct
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    first = source.first()
    data = first.get("Data")
    return (isinstance(data, list) and "Domain" in first) or {"question", "question_id", "answer", "entity_pages"} <= first.keys()


@data_format(
    "triviaqa",
    what="TriviaQA: trivia questions with many aliases, no passages",
    files="the official JSON, such as wikipedia-dev.json or unfiltered-web-dev.json",
    fields="Data: [{QuestionId, Question, Answer: {Value, Aliases}}]",
    licence="Apache-2.0",
    metrics=("exact_match", "f1"),
    recognises=_recognises,
)
def read_triviaqa(source: Source) -> Draft:
    """The answers are the value, its aliases and, as the official script counts them right, people's own answers."""
    records = source.top().records("Data") if "Data" in source.first() else iter(source.records())
    return Draft([_question(record) for record in records], language="en")


def _question(record: Record) -> Question:
    id, question = record.name("QuestionId", "question_id"), record.filled("Question", "question")
    if "Answer" not in record and "answer" not in record:
        return Question(id, question)
    answer = record.record("Answer", "answer")
    human = (*answer.texts("HumanAnswers", default=[]), *answer.texts("human_answers", default=[]))
    aliases = (answer.text("Value", "value"), *answer.texts("Aliases", "aliases", default=[]), *human)
    return Question(id, question, distinct(iter(aliases)))
