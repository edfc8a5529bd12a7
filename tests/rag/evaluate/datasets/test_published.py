"""The real files, as published: counts as their README gives them, and what only real data has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets import catalogue, load
from rag.evaluate.datasets.formats import detected
from rag.evaluate.datasets.source import Source
from rag.evaluate.metrics import metric
from rag.evaluate.metrics.registry import unanswerable
from rag.evaluate.types import Outcome

SETS = [
    ("xquad/xquad.en.json", "squad", 1190, 240, "en"),
    ("xquad/xquad.zh.json", "squad", 1190, 240, "zh"),
    ("xquad/xquad.de.json", "squad", 1190, 240, "de"),
    ("xquad/xquad.es.json", "squad", 1190, 240, "es"),
    ("popqa/popqa.json", "popqa", 1000, 1475, "en"),
    ("multihop/hotpotqa_train.json", "hotpotqa", 100, 994, "en"),
    ("multihop/musique_train.json", "musique", 100, 1890, "en"),
    ("musique_contexts/musique_s.json", "musique_contexts", 150, 1255, "en"),
    ("strategyqa/train.json", "strategyqa", 2061, 5515, "en"),
    ("strategyqa/dev.json", "strategyqa", 229, 593, "en"),
    ("nq_open/NQ-open.dev.jsonl", "nq_open", 3610, 0, "en"),
    ("rgb/zh_refine.json", "rgb", 300, 7337, "zh"),
    ("rgb/zh_int.json", "rgb", 100, 5177, "zh"),
    ("rgb/zh_fact.json", "rgb", 100, 1360, "zh"),
    ("rgb/en_fact.json", "rgb", 100, 1361, "en"),
    ("scifact/scifact.zip", "scifact", 300, 5183, "en"),
    ("noveleval", "noveleval", 21, 420, "en"),
    ("bbh/bbh", "bbh", 6511, 0, "en"),
    ("bbh/bbh/date_understanding.json", "bbh", 250, 0, "en"),
    ("gsm8k/test.jsonl", "gsm8k", 1319, 0, "en"),
    ("svamp/SVAMP.json", "svamp", 1000, 0, "en"),
    ("svamp/mawps-asdiv-a_svamp/train.csv", "svamp", 3138, 0, "en"),
]


@pytest.mark.parametrize(("file", "format", "questions", "passages", "language"), SETS, ids=[s[0] for s in SETS])
def test_a_published_set_has_the_size_its_readme_gives(
    published: Path, file: str, format: str, questions: int, passages: int, language: str
) -> None:
    assert detected(Source(published / file)).name == format
    data = load(published / file)
    assert (len(data.questions), len(data.passages), data.language) == (questions, passages, language)
    assert data.metrics
    assert data.notes == ()  # no gold passage is missing
    assert not any(unanswerable(question) for question in data.questions)


@pytest.mark.parametrize("file", ["xquad/xquad.en.json", "popqa/popqa.json", "strategyqa/dev.json", "rgb/zh_int.json", "noveleval"])
def test_every_question_of_a_set_with_gold_has_gold(published: Path, file: str) -> None:
    data = load(published / file)
    known = {passage.id for passage in data.passages}
    assert all(question.gold and known.issuperset(question.gold) for question in data.questions)


def test_the_answer_of_xquad_stands_in_its_gold_paragraph(published: Path) -> None:
    data = load(published / "xquad/xquad.zh.json")
    text = {passage.id: passage.text for passage in data.passages}
    assert all(question.answers[0] in text[question.gold[0]] for question in data.questions)


def test_hotpotqa_and_musique_find_their_supporting_passages_in_the_corpus_beside_them(published: Path) -> None:
    for name in ("hotpotqa_train", "musique_train"):
        data = load(published / f"multihop/{name}.json")
        known = {passage.id for passage in data.passages}
        assert all(len(question.gold) >= 2 and known.issuperset(question.gold) for question in data.questions)
    rows = json.loads((published / "multihop/musique_train.json").read_text("utf-8"))
    text = {passage.id: passage.text for passage in data.passages}
    for row, question in zip(rows, data.questions, strict=True):
        assert {text[id] for id in question.gold} == {p["paragraph_text"] for p in row["paragraphs"] if p["is_supporting"]}


def test_scifact_has_the_339_relevant_pairs_that_beir_publishes(published: Path) -> None:
    data = load(published / "scifact/scifact.zip")
    assert sum(len(question.gold) for question in data.questions) == 339
    assert {question.kind for question in data.questions} == {"support", "contradict", "no evidence"}


def test_rgb_reads_parts_aliases_and_false_answers(published: Path) -> None:
    integration = {question.id: question for question in load(published / "rgb/zh_int.json").questions}
    assert integration["0"].parts == (("1月3日",), ("1月12日",))
    assert integration["5"].parts == (("1313851", "131万"), ("187万", "186.35万"))
    fact = load(published / "rgb/en_fact.json").questions[0]
    assert (fact.answers, fact.metadata["fakeanswer"]) == (("Tampa, Florida",), ("Glendale, Arizona",))
    assert len(fact.metadata["wrong"]) == 3


def test_gsm8k_drops_thousands_commas(published: Path) -> None:
    answers = {answer for question in load(published / "gsm8k/test.jsonl").questions for answer in question.answers}
    assert "276000" in answers
    assert not any("," in answer for answer in answers)


def test_no_placeholder_is_left_in_a_word_problem(published: Path) -> None:
    for name in ("mawps-asdiv-a_svamp/train", "mawps-asdiv-a_svamp/dev", "cv_mawps/fold0/dev"):
        questions = load(published / f"svamp/{name}.csv").questions
        assert not any("number0" in question.question for question in questions)


def test_the_catalogue_finds_every_set_and_its_size(published: Path) -> None:
    entries = {Path(entry.files).relative_to(published).as_posix(): entry for entry in catalogue(published)}
    listed = {name: (entry.format, entry.size.split(" ")[0]) for name, entry in entries.items()}
    for file, format, questions, _, _ in SETS:
        if not file.startswith("bbh/bbh/"):  # the folder is one set
            assert listed[file] == (format, f"{questions:,}")
    assert entries["gsm8k/test.jsonl"].name == "gsm8k-test"
    assert len(entries) == 27
    assert not any("cannot" in entry.size for entry in entries.values())


def test_a_published_file_of_another_format_is_refused(published: Path) -> None:
    with pytest.raises(InputError, match=r"popqa\.json: squad is one JSON object, this file holds a list\. It has data: .*George Rankin"):
        load(published / "popqa/popqa.json", format="squad")


def test_the_handbook_names_documents_as_gold() -> None:
    file = Path(__file__).parents[4] / "examples/handbook/questions.jsonl"
    data = load(file)
    assert len(data.questions) == 100
    assert data.questions[0].gold == ("safety/suits.md", "about/faq.md")
    assert all((file.parent / "docs" / id).is_file() for question in data.questions for id in question.gold)
    assert sum(not question.answerable for question in data.questions) == 15
    assert data.metrics == ("exact_match", "f1", "refusal", "false_refusal")
    assert "documents" in data.notes[0]


@pytest.mark.parametrize(
    "file", ["bbh/bbh", "gsm8k/test.jsonl", "svamp/SVAMP.json", "strategyqa/dev.json", "xquad/xquad.zh.json", "rgb/zh_int.json"]
)
def test_the_usual_metric_tells_the_gold_answer_from_silence(published: Path, file: str) -> None:
    data = load(published / file)
    usual = metric(data.metrics[0])
    scored = [q for q in data.questions if usual.fits(q)]
    assert len(scored) == len(data.questions)
    gold = [" ".join([*q.answers[:1], *(part[0] for part in q.parts)]) for q in scored]
    assert [q.id for q, answer in zip(scored, gold, strict=True) if usual.score(q, Outcome(q.id, answer)) != 1] == []
    assert [q.id for q in scored if usual.score(q, Outcome(q.id, "")) != 0] == []
