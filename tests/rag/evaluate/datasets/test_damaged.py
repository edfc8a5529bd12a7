"""Records with one field lost or replaced: they load, or the error is ours; read as any format."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets import load
from rag.evaluate.datasets.formats import known_formats

SETS: dict[str, Any] = {
    "squad": {
        "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q", "answers": [{"text": "a"}]}]}]}]
    },
    "hub": [{"id": "1", "title": "t", "context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [1]}}],
    "popqa": [
        {
            "id": 1,
            "question": "q",
            "possible_answers": '["a"]',
            "s_pop": 1,
            "prop": "p",
            "paragraphs": [{"title": "t", "text": "x"}],
            "subj": "t",
        }
    ],
    "hotpotqa": [
        {
            "_id": "1",
            "question": "q",
            "answer": "a",
            "type": "bridge",
            "supporting_facts": [["t", 0]],
            "context": [["t", ["s"]]],
            "level": "x",
        }
    ],
    "musique": [
        {
            "id": "2hop__1",
            "question": "q",
            "answer": "a",
            "answer_aliases": ["b"],
            "answerable": True,
            "paragraphs": [{"title": "t", "paragraph_text": "x", "is_supporting": True}],
            "question_decomposition": [{"question": "p"}],
        }
    ],
    "contexts": [{"question": "q", "answers": ["a"], "ctxs": [{"title": "t", "text": "x"}]}],
    "multihop_rag": [{"query": "q", "answer": "a", "question_type": "x", "evidence_list": [{"title": "t", "url": "u", "fact": "f"}]}],
    "strategyqa": [{"qid": "1", "question": "q", "answer": True, "facts": ["f"], "decomposition": ["d"]}],
    "rgb": [
        {"id": 1, "query": "q", "answer": [["a"], "b"], "positive": [["x"]], "negative": ["y"], "positive_wrong": ["z"], "fakeanswer": "w"}
    ],
    "triviaqa": {"Data": [{"QuestionId": "1", "Question": "q", "Answer": {"Value": "a", "Aliases": ["b"]}}], "Domain": "Web"},
    "asqa": {"dev": {"1": {"ambiguous_question": "q", "qa_pairs": [{"short_answers": ["a"]}], "annotations": [{"long_answer": "b"}]}}},
    "bbh": {"examples": [{"input": "q", "target": "a"}]},
    "gsm8k": [{"question": "q", "answer": "s #### 1"}],
    "svamp": [{"ID": "1", "Body": "b", "Question": "q", "Equation": "e", "Answer": 1.0, "Type": "t"}],
    "own": [
        {"id": "1", "question": "q", "answers": ["a"], "gold": [{"document": "d", "quote": "x"}], "parts": [["a"]], "answerable": True}
    ],
}
DAMAGE: list[Any] = [None, 0, 1.5, True, "", " ", "x", [], [[]], {}, {"a": 1}, [None], [1], ["a"], [["a"]], [{}], "\ud83d", "[1]", 10**30]


@pytest.mark.parametrize("name", SETS)
def test_a_damaged_record_loads_or_is_refused_in_our_words(name: str, tmp_path: Path) -> None:
    assert load(saved(tmp_path, SETS[name])).questions
    chance = random.Random(name)
    formats = [None, *(format.name for format in known_formats())]
    places = [place for place in walk(SETS[name]) if place]
    messages = []
    for _ in range(60):
        path = saved(tmp_path, damaged(SETS[name], chance.choice(places), chance.choice(DAMAGE)))
        for format in (None, chance.choice(formats)):
            try:
                assert load(path, format=format).questions
            except InputError as error:
                messages.append(str(error))
    assert messages
    assert all(str(path) in message and len(message) < 1500 for message in messages)


def saved(folder: Path, content: Any) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def walk(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value stands."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from walk(item, (*place, key))


def damaged(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content
