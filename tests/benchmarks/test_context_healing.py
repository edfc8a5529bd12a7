"""`benchmarks.context_healing`: what is learnt, who is asked, which model says what, and that nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from adapters.folder import read_card  # noqa: E402
from adapters.reparameterised.lora.config import LoRA  # noqa: E402
from adapters.training.options import Options  # noqa: E402
from benchmarks import context_healing, context_store  # noqa: E402
from benchmarks.context_healing import CASES, CONTROLS, LINKS, Learner, lessons, rows  # noqa: E402
from benchmarks.context_store import HELD_OUT, SCORES  # noqa: E402
from benchmarks.domain_data import ARTICLE, split  # noqa: E402
from benchmarks.results import read_record  # noqa: E402
from generators.passages import passage_data  # noqa: E402
from rag.core.errors import InputError  # noqa: E402
from rag.evaluate.compare import compare  # noqa: E402
from rag.evaluate.datasets import load  # noqa: E402
from rag.evaluate.types import Outcome  # noqa: E402
from tests.benchmarks.test_context_store import data, model  # noqa: E402, F401
from tests.generators.models.conftest import tiny_folder  # noqa: E402, F401

SHARED = Path(__file__).parents[2] / "../shared/data"
SMALL = ("--limit", "2", "--steps", "2", "--accumulate", "2", "--rank", "2", "--lr", "0.5")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """15 articles of four paragraphs, a question to each."""
    articles = []
    for a in range(15):
        paragraphs = []
        for p in range(4):
            asked = {"id": f"q{a}.{p}", "question": f"which {a} is {p} ?", "answers": [{"answer_start": 0, "text": f"lamp {a}"}]}
            paragraphs.append({"context": f"lamp {a} {p} is a lamp", "qas": [asked]})
        articles.append({"title": f"article {a}", "paragraphs": paragraphs})
    (made := tmp_path / "xquad.en.json").write_text(json.dumps({"data": articles}), "utf-8")
    return made


def test_a_lesson_shows_its_own_paragraph_among_others_of_its_article(file: Path) -> None:
    parts = split(load(file), HELD_OUT, 5, 0)
    made = [json.loads(line) for line in lessons(parts, 0)]
    articles = {passage_data(passage): passage.metadata[ARTICLE] for passage in parts.asked.passages}
    texts = {passage.id: passage_data(passage) for passage in parts.asked.passages}
    assert len(made) == len(parts.learnt) == 12
    places = []
    for question, row in zip(parts.learnt, made, strict=True):
        assert (row["question"], row["answer"]) == (question.question, question.answers[0])
        assert {articles[text] for text in row["passages"]} == {question.metadata[ARTICLE]}
        assert len(set(row["passages"])) == len(row["passages"])
        places.append(row["passages"].index(texts[question.gold[0]]))
    assert {len(row["passages"]) for row in made} == {2, 3}
    assert len(set(places)) > 1
    assert not {question.metadata[ARTICLE] for question in parts.asked.questions} & set(parts.articles)
    assert list(lessons(parts, 0)) == list(lessons(parts, 0)) != list(lessons(parts, 1))


def learner(model: Path, runs: Path, apart: bool = True) -> Learner:  # noqa: F811
    lines = [json.dumps({"passages": ["the cat sat", "a dog ran"], "question": f"who {n} ?", "answer": f"the cat {n}"}) for n in range(6)]
    return Learner(str(model), lines, LoRA(2, 4.0), Options(lr=1e-2, steps=4, batch=2, save_every=1, keep="last"), apart, runs)


def weights(adapter: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(adapter / "adapter_model.safetensors"))


def test_a_stopped_learner_goes_on_and_the_masks_differ(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    whole, control = learner(model, tmp_path / "whole").train(), learner(model, tmp_path / "whole", apart=False).train()
    assert (read_card(whole)["attention"], "attention" in read_card(control)) == ("passages apart", False)
    steps: list[int] = []

    def stop(event: Any) -> None:
        steps.append(event.step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(context_healing, "_tell", stop)
    with pytest.raises(KeyboardInterrupt):
        learner(model, tmp_path / "parts").train()
    again = learner(model, tmp_path / "parts").train()
    assert steps == [1, 2, 2, 3, 4]
    expected, got, other = weights(whole), weights(again), weights(control)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert any(not torch.equal(expected[name], other[name]) for name in expected)
    monkeypatch.setattr(Learner, "_trained", None)
    assert learner(model, tmp_path / "parts").train() == again


def run(data: Path, model: Path, runs: Path, *more: str) -> dict[tuple[str, str], float]:  # noqa: F811
    given = ["--data", str(data), "--model", str(model), "--runs", str(runs), "--json", str(runs / "result.json")]
    context_healing.main([*given, *SMALL, *more])
    return {(row.case, row.metric): row.value for row in read_record(runs / "result.json").rows}


def test_the_whole_of_it_and_again(
    data: Path,  # noqa: F811
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = run(data, model, tmp_path)
    cases = {case.removeprefix("answers/") for case, _ in first if case.startswith("answers/")}
    assert cases == set(CASES)
    assert ("train/healed", "first_loss") in first
    for case in CASES:
        assert {(f"answers/{case}", metric) for metric in ("f1", "f1_min", "f1_max", "em")} <= set(first)
        assert first[f"answers/{case}", "questions"] == 2
    both = run(data, model, tmp_path, "--control", "--links", "2")
    assert {place: both[place] for place in first} == first
    assert ("answers/healed", "f1_to_full") in both
    assert first["train/healed", "steps"] == both["train/control", "steps"] == both["train/linked", "steps"] == 2
    assert ("answers/linked", "f1_by_links") in both

    answers = [json.loads(file.read_text("utf-8")) for file in (tmp_path / "kept").glob("answer-*.json")]
    said: dict[Any, list[str]] = {}
    for one in sorted(answers, key=lambda one: str(one["key"]["question"])):
        said.setdefault((one["key"]["way"], one["key"]["model"]["adapter"]), []).append(one["value"])
    assert len(said) == len({**CASES, **CONTROLS, **LINKS}) == 7
    assert len(set(map(tuple, said.values()))) == 7  # each case is another model or another way of reading

    def must_not(*_: Any, **__: Any) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(Learner, "_trained", must_not)
    monkeypatch.setattr("benchmarks.context_ways.Ways.write", must_not)
    assert run(data, model, tmp_path, "--control", "--links", "2") == both
    with pytest.raises(AssertionError, match="done before"):
        run(data, model, tmp_path, "--steps", "3")


def test_differences_are_paired(file: Path) -> None:
    asked = split(load(file), HELD_OUT, 4, 0).asked
    right = [question.answers[0] for question in asked.questions]
    given = {"full": [*right[:2], "no", "no"], "stitched": [right[0], "no", "no", "no"], "healed": [*right[:3], "no"], "control": right}
    given |= {"healed-full": right, "control-stitched": ["no"] * 4}
    outcomes = {case: [Outcome(q.id, text) for q, text in zip(asked.questions, texts, strict=True)] for case, texts in given.items()}
    made = rows(compare(asked, outcomes, list(SCORES.values())), list(given))
    found = {(row.case.removeprefix("answers/"), row.metric): row.value for row in made}
    assert (found["full", "em"], found["stitched", "em"], found["healed", "f1"], found["control", "f1"]) == (50, 25, 75, 100)
    assert (found["healed", "f1_gain"], found["control", "f1_gain"], found["control-stitched", "f1_gain"]) == (50, 50, -25)
    assert (found["stitched", "f1_to_full"], found["healed", "f1_to_full"], found["control-stitched", "f1_to_full"]) == (-25, -25, -100)
    assert found["healed", "f1_gain_min"] <= 50 <= found["healed", "f1_gain_max"]
    assert ("full", "f1_gain") not in found


def test_data_that_are_not_there_and_options_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data takes the folder that holds xquad/"):
        context_healing.main(["--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        context_healing.options(["--data", ".", "--limit", "0"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_the_questions_are_those_of_context_store_and_none_is_learnt_twice() -> None:
    parts = split(load(SHARED / "xquad" / "xquad.en.json"), HELD_OUT, 80, 0)
    assert parts.asked.questions == context_store.questions("xquad", SHARED, None).questions
    given = context_healing.options(["--data", "."])
    assert len(list(lessons(parts, 0))) >= given.steps * given.batch * given.accumulate
