from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets import load
from tests.rag.evaluate.datasets.conftest import Write


def squad(*qas: dict[str, Any]) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "Normans", "paragraphs": [{"context": "They came from the north.", "qas": list(qas)}]}]}


ANSWERED = {"id": "a", "question": "Whence?", "answers": [{"text": "the north", "answer_start": 15}, {"text": "north"}, {"text": "north"}]}
IMPOSSIBLE = {"id": "b", "question": "When?", "is_impossible": True, "answers": [], "plausible_answers": [{"text": "north"}]}


def test_version_2_has_unanswerable_questions(write: Write) -> None:
    data = load(write("dev-v2.0.json", squad({**ANSWERED, "is_impossible": False}, IMPOSSIBLE)))
    answered, impossible = data.questions
    assert (answered.answers, answered.gold, answered.kind) == (("the north", "north"), ("Normans",), "answerable")
    assert (impossible.answers, impossible.answerable, impossible.kind) == ((), False, "unanswerable")
    assert data.metrics == ("squad2_exact_match", "squad2_f1", "refusal", "false_refusal")


def test_a_paragraph_is_a_passage_once(write: Write) -> None:
    content = squad(ANSWERED)
    content["data"] += squad({**ANSWERED, "id": "c"})["data"]
    content["data"][0]["paragraphs"].append({"context": "Another.", "qas": []})
    data = load(write("x.json", content))
    assert [(p.id, p.text, p.metadata) for p in data.passages] == [
        ("Normans", "They came from the north.", {"article": "Normans"}),
        ("Normans (2)", "Another.", {"article": "Normans"}),
    ]
    assert [q.gold for q in data.questions] == [("Normans",), ("Normans",)]


def test_cmrc_as_published(write: Write) -> None:
    row = {
        "context_id": "DEV_0",
        "context_text": "《战国无双3》是由光荣和ω-force开发的战国无双系列的正统第三续作。",
        "title": "战国无双3",
        "qas": [
            {
                "query_id": "DEV_0_QUERY_0",
                "query_text": "《战国无双3》是由哪两个公司合作开发的？",
                "answers": ["光荣和ω-force", "光荣和ω-force"],
            }
        ],
    }
    data = load(write("cmrc2018_dev.json", [row]))
    assert (data.language, data.passages[0].id) == ("zh", "DEV_0")
    assert (data.questions[0].id, data.questions[0].answers) == ("DEV_0_QUERY_0", ("光荣和ω-force",))


def test_flat_records_as_on_the_hub(write: Write) -> None:
    rows = [
        {"id": "a", "title": "T", "context": "C.", "question": "Q?", "answers": {"text": ["C"], "answer_start": [0]}},
        {"id": "b", "title": "T", "context": "C.", "question": "R?", "answers": {"text": [], "answer_start": []}},
    ]
    data = load(write("x.jsonl", rows))
    assert [(q.answers, q.answerable) for q in data.questions] == [(("C",), True), ((), False)]
    assert len(data.passages) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "'id' or 'query_id' is missing"),
        ({"question": " "}, "'question' or 'query_text' is empty"),
        ({"answers": "north"}, r"'answers' must be a list, not text"),
        ({"answers": [3]}, r"'answers\[0\]' must be an object"),
        ({"answers": []}, "1 question has no answer"),
        ({"is_impossible": "no"}, "'is_impossible' must be true or false"),
    ],
)
def test_a_question_that_does_not_fit(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write("x.json", squad({**ANSWERED, **change})))


def test_an_empty_set(write: Write) -> None:
    with pytest.raises(InputError, match="there is no question in it"):
        load(write("x.json", squad()))
    with pytest.raises(InputError, match=r"'data' must be a list, not an object\. Format squad expects data: "):
        load(write("y.json", {"data": {"a": 1}}), format="squad")
