"""HotpotQA, 2WikiMultihopQA, MuSiQue and MultiHop-RAG: several gold passages a question."""

from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets import load
from rag.evaluate.datasets.corpus_file import joined
from rag.evaluate.datasets.formats import detected
from rag.evaluate.datasets.source import Source
from tests.rag.evaluate.datasets.conftest import Write

HOTPOT: dict[str, Any] = {
    "_id": "h1",
    "question": "Who founded the town by the lake?",
    "answer": "Ada",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Town", 0], ["Town", 1], ["Ada", 0]],
    "context": [["Town", ["It is by a lake.", " Ada founded it."]], ["Ada", ["A founder."]], ["Other", ["Nothing."]]],
}
MUSIQUE: dict[str, Any] = {
    "id": "2hop__1_2",
    "question": "Who founded it?",
    "answer": "Ada",
    "answer_aliases": ["Ada B."],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "Town", "paragraph_text": "By a lake.", "is_supporting": True},
        {"idx": 1, "title": "Town", "paragraph_text": "Another town.", "is_supporting": False},
    ],
    "question_decomposition": [{"id": 1, "question": "Where?"}, {"id": 2, "question": "Who?"}],
}
QUERY: dict[str, Any] = {
    "query": "Which firm?",
    "answer": "Acme",
    "question_type": "inference_query",
    "evidence_list": [{"title": "A", "url": "http://a", "fact": "f"}, {"title": "A", "url": "http://a", "fact": "g"}],
}
NULL: dict[str, Any] = {"query": "What else?", "answer": "Insufficient information.", "question_type": "null_query", "evidence_list": []}


def test_hotpotqa_without_a_corpus_file_searches_all_paragraphs(write: Write) -> None:
    other = {**HOTPOT, "_id": "h2", "type": "comparison", "context": [*HOTPOT["context"][:2], ["Town", ["Another text."]]]}
    data = load(write("dev.json", [HOTPOT, other]))
    assert [p.id for p in data.passages] == ["Town", "Ada", "Other", "Town (2)"]
    assert data.passages[0].text == "It is by a lake. Ada founded it."
    assert data.questions[0].gold == ("Town", "Ada")
    assert data.questions[0].metadata["passages"] == ("Town", "Ada", "Other")
    assert [q.kind for q in data.questions] == ["bridge", "comparison"]


def test_hotpotqa_as_on_the_hub(write: Write) -> None:
    row = {
        **{key: HOTPOT[key] for key in ("question", "answer", "type", "level")},
        "id": "h1",
        "supporting_facts": {"title": ["Town", "Ada"], "sent_id": [0, 0]},
        "context": {"title": ["Town", "Ada"], "sentences": [["It is by a lake."], ["A founder."]]},
    }
    assert load(write("x.json", [row])).questions[0].gold == ("Town", "Ada")


def test_a_corpus_file_is_the_corpus_and_what_it_lacks_is_noted(write: Write) -> None:
    write("h_corpus.json", {"Town": ["It is by a lake.", " Ada founded it."], "Other": ["Nothing."]})
    data = load(write("h.json", [HOTPOT]))
    assert [p.id for p in data.passages] == ["Town", "Other"]
    assert data.questions[0].gold == ("Town", "Ada")
    assert data.notes == ("1 gold passage is missing from the corpus and cannot be found: Ada (question h1)",)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"Town": [1]}, "'Town' must be a list of texts"),
        ([{"title": "Town"}], "'text' is missing"),
        ({}, "holds no passage"),
        ("[", "truncated"),
    ],
)
def test_a_corpus_file_that_does_not_fit(write: Write, corpus: Any, message: str) -> None:
    write("h_corpus.json", corpus)
    with pytest.raises(InputError, match=rf"h_corpus\.json.*{message}"):
        load(write("h.json", [HOTPOT]))


def test_2wiki_is_told_apart_by_its_evidences(write: Write) -> None:
    path = write("x.json", [{**HOTPOT, "type": "compositional", "evidences": [["Town", "founder", "Ada"]]}])
    assert detected(Source(path)).name == "2wikimultihopqa"
    assert load(path).questions[0].kind == "compositional"
    assert load(path).licence == "Apache-2.0"


def test_sentences_are_joined_with_one_space() -> None:
    assert joined(["A.", " B.", "C. ", "D."]) == "A. B. C. D."
    assert joined([]) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": [["Town"]]}, r"'context' must be a list of \[title, \[sentence\]\]"),
        ({"context": [["Town", "text"]]}, "'context' must be a list"),
        ({"supporting_facts": ["Town"]}, "'supporting_facts' must be a list"),
        ({"answer": None}, "'answer' is missing"),
        ({"answer": ""}, "1 question has no answer"),
    ],
)
def test_a_hotpotqa_record_that_does_not_fit(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write("x.json", [{**HOTPOT, **change}]), format="hotpotqa")


def test_musique_official_with_unanswerable_twins(write: Write) -> None:
    twin = {**MUSIQUE, "answerable": False}
    data = load(write("musique_full_v1.0_dev.jsonl", [MUSIQUE, twin, {**MUSIQUE, "id": "3hop1__4_5_6"}]))
    first, second, third = data.questions
    assert (first.id, first.answers, first.gold, first.kind) == ("2hop__1_2", ("Ada", "Ada B."), ("Town",), "2hop")
    assert (second.id, second.answers, second.answerable) == ("2hop__1_2 (unanswerable)", (), False)
    assert third.kind == "3hop"
    assert first.metadata == {"steps": ("Where?", "Who?"), "passages": ("Town", "Town (2)")}
    assert len(data.passages) == 2
    assert data.metrics == ("exact_match", "f1", "refusal", "false_refusal")


def test_a_musique_question_twice_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="given more than once"):
        load(write("x.jsonl", [MUSIQUE, MUSIQUE]))


def test_multihop_rag_finds_articles_by_address(write: Write) -> None:
    write("MultiHopRAG.json", [QUERY, NULL])
    folder = write("corpus.json", [{"title": "A", "url": "http://a", "body": "Acme did.", "source": "Daily"}]).parent
    for path in (folder, folder / "MultiHopRAG.json"):
        data = load(path)
        query, null = data.questions
        assert (query.id, query.gold, query.answers, query.kind) == ("1", ("A",), ("Acme",), "inference_query")
        assert (null.answerable, null.answers, null.kind) == (False, (), "null_query")
        assert [(p.id, p.text, p.metadata) for p in data.passages] == [("A", "Acme did.", {"source": "Daily"})]


def test_multihop_rag_without_its_corpus_says_so(write: Write) -> None:
    data = load(write("x.json", [QUERY]))
    assert (data.passages, data.questions[0].gold) == ((), ("http://a",))
    assert "no corpus.json" in data.notes[0]
