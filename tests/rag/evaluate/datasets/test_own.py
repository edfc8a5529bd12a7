from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets import load
from tests.rag.evaluate.datasets.conftest import Write

ROW: dict[str, Any] = {"question": "Why?", "answers": ["so", "because"]}


def test_only_a_question_and_an_answer_are_needed(write: Write) -> None:
    data = load(
        write(
            "q.jsonl",
            [{"question": "Why?", "answer": "so"}, {"question": "Is it?", "answer": True}, {"question": "How many?", "answer": 3}],
        )
    )
    assert [(q.id, q.answers) for q in data.questions] == [("1", ("so",)), ("2", ("yes",)), ("3", ("3",))]
    assert (data.passages, data.licence, data.language) == ((), "", "en")


def test_every_field(write: Write) -> None:
    row = {**ROW, "id": "a", "gold": ["d1", "d2", "d1"], "type": "multi-hop", "parts": [["x", "y"], "z"], "language": "de", "team": "ops"}
    question = load(write("q.jsonl", [row])).questions[0]
    assert (question.id, question.gold, question.kind) == ("a", ("d1", "d2"), "multi-hop")
    assert question.parts == (("x", "y"), ("z",))
    assert question.metadata == {"language": "de", "team": "ops"}


def test_a_table_separates_by_bars(write: Write) -> None:
    table = "id,question,answers,gold,type,answerable\na,Why?,so| because,d1|d2,single,\nb,When?,,,,no\n"
    first, second = load(write("q.csv", table)).questions
    assert (first.answers, first.gold, first.kind) == (("so", "because"), ("d1", "d2"), "single")
    assert (second.answers, second.answerable) == ((), False)


def test_gold_as_document_and_quote(write: Write) -> None:
    gold = [{"document": "a.md", "quote": "So."}, {"document": "b.md", "quote": "Thus."}, {"document": "a.md", "quote": "Hence."}]
    data = load(write("q.jsonl", [{**ROW, "gold": gold}]))
    assert data.questions[0].gold == ("a.md", "b.md")
    assert data.questions[0].metadata["quotes"] == ("So.", "Thus.", "Hence.")
    assert data.notes == ("gold ids are documents: compare them with the documents of retrieved passages",)


def test_gold_alone_is_a_retrieval_set(write: Write) -> None:
    data = load(write("q.jsonl", [{"question": "Why?", "gold": ["d1"]}]))
    assert data.metrics == ("ndcg@10", "recall@10")


def test_unanswerable_by_type_or_flag(write: Write) -> None:
    rows = [ROW, {"question": "A?", "answers": [], "type": "unanswerable"}, {"question": "B?", "answerable": False}]
    data = load(write("q.jsonl", rows))
    assert [(q.answerable, q.answers) for q in data.questions] == [(True, ("so", "because")), (False, ()), (False, ())]


def test_chinese_is_seen_from_the_questions(write: Write) -> None:
    assert load(write("q.jsonl", [{"question": "宇航服可以穿多久？", "answers": ["六小时"]}])).language == "zh"
    assert load(write("r.jsonl", [{"question": "宇航服は何時間着られますか？", "answers": ["六時間"]}])).language == "en"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ""}, "'question' is empty"),
        ({"question": 3}, "'question' must be text, not a number"),
        ({"answers": {"a": 1}}, "must be a list of texts"),
        ({"answers": []}, "1 question has no answer"),
        ({"gold": [3]}, r"'gold\[0\]' must be an object"),
        ({"gold": [{"quote": "So."}]}, "'document' is missing"),
        ({"gold": 3}, "'gold' must be a list"),
        ({"parts": [[]]}, "'parts' must be"),
        ({"answerable": "no"}, "'answerable' must be true or false"),
        ({"id": {}}, "'id' must be an identifier"),
    ],
)
def test_a_record_that_does_not_fit(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write("q.jsonl", [{**ROW, **change}]))


def test_a_table_with_an_unclear_flag(write: Write) -> None:
    with pytest.raises(InputError, match="line 2: 'answerable' must be true or false"):
        load(write("q.csv", "question,answers,answerable\nWhy?,so,perhaps\n"))
