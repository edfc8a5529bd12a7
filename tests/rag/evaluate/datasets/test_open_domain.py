"""NQ-open, PopQA, TriviaQA, ASQA, StrategyQA, RGB and questions with their own contexts."""

from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets import load
from tests.rag.evaluate.datasets.conftest import Write

POPQA: dict[str, Any] = {
    "id": 42,
    "subj": "Ada",
    "prop": "occupation",
    "s_pop": 142,
    "question": "What is Ada's occupation?",
    "possible_answers": '["engineer", "eng."]',
}
RGB: dict[str, Any] = {"id": 0, "query": "Where?", "answer": "Tampa", "positive": ["In Tampa."], "negative": ["No.", "No."]}
TRIVIA: dict[str, Any] = {
    "QuestionId": "tc_1",
    "Question": "Who?",
    "Answer": {
        "Value": "Sinclair Lewis",
        "Aliases": ["Lewis", "Sinclair Lewis"],
        "NormalizedAliases": ["lewis"],
        "HumanAnswers": ["S. Lewis"],
    },
}
ASQA: dict[str, Any] = {
    "ambiguous_question": "Who has the most wins?",
    "qa_pairs": [
        {"question": "At home?", "short_answers": ["Ada", "Ada B."], "context": "…", "wikipage": None},
        {"question": "Away?", "short_answers": ["Bo"]},
    ],
    "annotations": [{"long_answer": "Ada at home, Bo away.", "knowledge": []}, {"long_answer": "Ada and Bo."}],
}
YES_NO: dict[str, Any] = {"qid": "s1", "question": "Is it?", "answer": True, "facts": ["It is.", "It was."], "decomposition": ["A?", "B?"]}


def test_nq_open_numbers_its_questions(write: Write) -> None:
    data = load(write("x.jsonl", [{"question": "who", "answer": ["a", "b"]}, {"question": "who", "answer": ["c"]}]))
    assert [(q.id, q.answers) for q in data.questions] == [("1", ("a", "b")), ("2", ("c",))]


def test_popqa_takes_the_subjects_paragraph_as_gold(write: Write) -> None:
    paragraphs = [{"title": "Ada", "text": "An engineer."}, {"title": "Engineer", "text": "Builds."}]
    question = load(write("popqa.json", [{**POPQA, "paragraphs": paragraphs}])).questions[0]
    assert (question.id, question.answers, question.gold, question.kind) == ("42", ("engineer", "eng."), ("Ada",), "occupation")
    assert question.metadata["popularity"] == 142


def test_popqa_as_its_authors_publish_it(write: Write) -> None:
    table = 'id\tsubj\tprop\tquestion\tpossible_answers\ts_pop\n42\tAda\toccupation\tWhat?\t"[""engineer"", ""eng.""]"\t142\n'
    data = load(write("popQA.tsv", table))
    assert (data.questions[0].answers, data.questions[0].metadata["popularity"], data.passages) == (("engineer", "eng."), 142, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"possible_answers": "engineer"}, "'possible_answers' must be a JSON list"),
        ({"possible_answers": "[1]"}, "JSON list"),
        ({"s_pop": "many"}, "'s_pop'"),
    ],
)
def test_a_popqa_record_that_does_not_fit(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write("x.json", [{**POPQA, **change}]))


def test_triviaqa_official_and_as_on_the_hub(write: Write) -> None:
    data = load(write("web-dev.json", {"Data": [TRIVIA], "Domain": "Web", "Version": 1.0}))
    assert (data.questions[0].id, data.questions[0].answers) == ("tc_1", ("Sinclair Lewis", "Lewis", "S. Lewis"))
    hub = {"question": "Who?", "question_id": "tc_1", "entity_pages": {}, "answer": {"value": "Lewis", "aliases": ["S. Lewis"]}}
    assert load(write("hub.jsonl", [hub])).questions[0].answers == ("Lewis", "S. Lewis")


def test_triviaqas_test_file_has_no_answers(write: Write) -> None:
    bare = {key: TRIVIA[key] for key in ("Question", "QuestionId")}
    with pytest.raises(InputError, match=r"no answer .* \(a test file without answers\?\): tc_1"):
        load(write("web-test.json", {"Data": [bare], "Domain": "Web"}))


def test_asqa_has_an_answer_set_per_reading(write: Write) -> None:
    data = load(write("ASQA.json", {"train": {"1": ASQA}, "dev": {"-7": ASQA}}))
    question = data.questions[0]
    assert (question.id, len(data.questions), data.notes) == ("-7", 1, ("these are the questions of 'dev'",))
    assert question.parts == (("Ada", "Ada B."), ("Bo",))
    assert question.answers == ("Ada at home, Bo away.", "Ada and Bo.")
    assert data.metrics == ("string_em", "rouge_l")
    assert load(write("hub.jsonl", [{**ASQA, "sample_id": "-7"}])).questions == data.questions


def test_an_asqa_file_without_splits(write: Write) -> None:
    with pytest.raises(InputError, match="none of dev, test, train is in it"):
        load(write("x.json", {"questions": {}}), format="asqa")
    with pytest.raises(InputError, match="dev, 1: not an object"):
        load(write("y.json", {"dev": {"1": []}}), format="asqa")


def test_strategyqa_answers_yes_or_no_and_its_facts_are_the_passages(write: Write) -> None:
    data = load(write("x.json", [YES_NO, {**YES_NO, "qid": "s2", "answer": False, "facts": ["It was."]}]))
    assert [(q.answers, q.gold, q.kind) for q in data.questions] == [
        (("yes",), ("s1:1", "s1:2"), "2 steps"),
        (("no",), ("s1:2",), "2 steps"),
    ]
    with pytest.raises(InputError, match="'answer' must be true or false, not text"):
        load(write("y.json", [{**YES_NO, "answer": "yes"}]))


@pytest.mark.parametrize(
    ("answer", "answers", "parts"),
    [
        ("Tampa", ("Tampa",), ()),
        (["Tampa"], ("Tampa",), ()),
        ([["Tampa", "Tampa, Florida"]], ("Tampa", "Tampa, Florida"), ()),
        (["2021", ["Tampa", "Florida"]], (), (("2021",), ("Tampa", "Florida"))),
    ],
)
def test_rgb_answers(write: Write, answer: Any, answers: tuple[str, ...], parts: tuple[tuple[str, ...], ...]) -> None:
    question = load(write("en.json", [{**RGB, "answer": answer}])).questions[0]
    assert (question.answers, question.parts) == (answers, parts)


def test_rgb_tells_its_splits_apart_and_keeps_every_document_once(write: Write) -> None:
    fact = {**RGB, "id": 1, "positive_wrong": ["In Miami."], "fakeanswer": "Miami"}
    integration = {**RGB, "id": 2, "positive": [["In Tampa."], ["In 2021."]]}
    data = load(write("x.json", [RGB, fact, integration]))
    assert [q.kind for q in data.questions] == ["refine", "fact", "int"]
    assert data.questions[0].metadata == {"positive": ("0:positive:0",), "negative": ("0:negative:0",), "wrong": ()}
    assert data.questions[1].metadata["fakeanswer"] == ("Miami",)
    assert data.questions[2].gold == ("0:positive:0", "2:positive:1")
    assert [p.text for p in data.passages] == ["In Tampa.", "No.", "In Miami.", "In 2021."]
    assert load(write("y.json", [RGB])).metrics == ("rgb_accuracy",)


@pytest.mark.parametrize("change", [{"answer": 3}, {"answer": [[]]}, {"answer": [[1]]}, {"positive": [1]}, {"negative": "text"}])
def test_an_rgb_record_that_does_not_fit(write: Write, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"'{next(iter(change))}' must be a .*Format rgb expects id, query"):
        load(write("x.json", [{**RGB, **change}]))


def test_questions_with_their_own_contexts(write: Write) -> None:
    row = {
        "question": "Who?",
        "answers": ["Ada"],
        "ctxs": [{"title": "", "text": "a"}, {"title": "", "text": "b"}, {"title": "", "text": "a"}],
    }
    data = load(write("x.json", [row, {**row, "ctxs": [{"text": "b"}]}]))
    assert [q.metadata["passages"] for q in data.questions] == [("p0", "p1", "p0"), ("p1",)]
    assert len(data.passages) == 2
