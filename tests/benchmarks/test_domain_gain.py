"""`benchmarks.domain_gain`: who is asked, what is learnt, and that nothing is done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.reparameterised.lora.config import LoRA
from adapters.training.options import Options
from benchmarks import domain_gain, domain_training
from benchmarks.domain_data import ARTICLE, GoldPassage, Lessons, split
from benchmarks.domain_gain import CASES, SCORES, rows
from benchmarks.domain_training import Figures, Reader, identity
from benchmarks.results import read_record
from generators.cited import Cited
from generators.models.checks import messages_json
from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.sync import run_sync
from rag.evaluate.compare import compare
from rag.evaluate.corpora import index_passages
from rag.evaluate.datasets import load
from rag.evaluate.store import RunFolder
from rag.evaluate.types import DataSet, Outcome
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from tests.adapters.tiny import tiny
from tests.adapters.training.parts import tokenizer
from tests.generators.conftest import ScriptedModel

PAGE = Path(__file__).parents[2] / "docs" / "grafting.md"
PUBLISHED = Path(__file__).parents[2] / "../shared/data/xquad/xquad.en.json"
FIGURES = Figures(40, 8, 1.5, 4.0, 1.0, 0.03, True)


def articles(repeated: bool = False) -> dict[str, Any]:
    """Six articles of two paragraphs; two questions to each paragraph, which share the words of their article with the other one."""
    data = []
    for a in range(6):
        paragraphs = []
        for p in range(2):
            own = f"w{a * 10 + p} w{a * 10 + p + 4}"
            asked = [f"what is w{a * 10 + p} ?", "what is this ?" if repeated else f"which w{a * 10 + p} is w{a * 10 + 9} ?"]
            answers = [{"answer_start": 0, "text": own.split()[1]}]
            qas = [{"id": f"q{a}{p}{n}", "question": text, "answers": answers} for n, text in enumerate(asked)]
            paragraphs.append({"context": f"{own} w{a * 10 + 9} is", "qas": qas})
        data.append({"title": f"article{a}", "paragraphs": paragraphs})
    return {"data": data}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "data" / "xquad" / "xquad.en.json"
    made.parent.mkdir(parents=True)
    made.write_text(json.dumps(articles()), "utf-8")
    return made


@pytest.fixture
def data(file: Path) -> DataSet:
    return load(file)


@pytest.fixture
def corpus(data: DataSet, tmp_path: Path) -> Iterator[Corpus]:
    index_passages(data, tmp_path / "corpus", encoder=None)
    opened = Corpus.open(tmp_path / "corpus")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_an_article_is_on_one_side(data: DataSet) -> None:
    parts = split(data, 2, 100, 0)
    asked = {question.metadata[ARTICLE] for question in parts.asked.questions}
    learnt = {question.metadata[ARTICLE] for question in parts.learnt}
    assert len(asked) == 2
    assert learnt == set(parts.articles)
    assert not asked & learnt
    assert {q.id for q in (*parts.asked.questions, *parts.learnt)} == {q.id for q in data.questions}
    assert parts.asked.passages == data.passages  # all of them are searched


def test_the_draw_depends_on_the_seed_alone(data: DataSet) -> None:
    assert split(data, 2, 3, 5) == split(data, 2, 3, 5)
    assert len(split(data, 2, 3, 5).asked.questions) == 3
    assert len({split(data, 2, 3, seed).articles for seed in range(8)}) > 1


def test_a_text_that_is_asked_of_two_passages_is_not_asked(file: Path) -> None:
    file.write_text(json.dumps(articles(repeated=True)), "utf-8")
    parts = split(load(file), 3, 100, 0)
    assert Counter(question.id[-1] for question in parts.asked.questions) == {"0": 6}
    assert len(parts.learnt) == 12


@pytest.mark.parametrize(("held_out", "questions"), [(0, 1), (6, 1), (-1, 1), (2, 0)])
def test_a_side_without_anything_is_refused(data: DataSet, held_out: int, questions: int) -> None:
    with pytest.raises(InputError, match=r"hold 1 to 5|one question or more"):
        split(data, held_out, questions, 0)


def shown(line: dict[str, Any], data: DataSet) -> list[str]:
    """The articles of the passages in a prompt, in its order."""
    text = line["prompt"][-1]["content"]
    there = [(text.index(f"] {passage.text}"), passage) for passage in data.passages if f"] {passage.text}" in text]
    return [str(passage.metadata[ARTICLE]) for _, passage in sorted(there, key=lambda found: found[0])]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_lesson_is_what_the_pipeline_sends(data: DataSet, corpus: Corpus, share: float) -> None:
    parts = split(data, 2, 100, 0)
    lines = [json.loads(line) for line in Lessons(corpus, 2, share, 0).lines(parts)]
    gold = {question.question: question.gold[0] for question in parts.learnt}
    search = BM25(corpus, k=2) if share else GoldPassage(corpus, gold)
    model = ScriptedModel("w1")
    pipe = Pipeline().add("search", search).add("answer", Cited(model, 2)).connect("search", "answer.retriever")
    for question, line in zip(parts.learnt, lines, strict=True):
        answer = pipe.run(question.question, filter={ARTICLE: list(parts.articles)})
        assert question.gold[0] in [hit.passage.id for hit in answer.sources]
        assert messages_json(model.prompts[-1]) == line["prompt"]
        assert line["answer"] == question.answers[0]


@pytest.mark.parametrize("seed", range(4))  # with each, other articles are held out
def test_no_lesson_shows_an_article_that_is_held_out(data: DataSet, corpus: Corpus, seed: int) -> None:
    parts = split(data, 2, 100, seed)
    for question, line in zip(parts.learnt, map(json.loads, Lessons(corpus, 4, 1.0, 0).lines(parts)), strict=True):
        found = shown(line, data)
        assert 1 < len(found) <= 4
        assert question.metadata[ARTICLE] in found
        assert set(found) <= set(parts.articles)


def test_a_paragraph_that_is_not_found_is_shown_last(data: DataSet, corpus: Corpus) -> None:
    parts = split(data, 2, 100, 0)
    passages = {passage.id: passage for passage in data.passages}
    turned = [replace(question, gold=parts.learnt[at - 8].gold) for at, question in enumerate(parts.learnt)]  # those of another article
    lines = map(json.loads, Lessons(corpus, 2, 1.0, 0).lines(replace(parts, learnt=tuple(turned))))
    for question, turn, line in zip(parts.learnt, turned, lines, strict=True):
        assert shown(line, data) == [question.metadata[ARTICLE], passages[turn.gold[0]].metadata[ARTICLE]]


def test_some_lessons_show_a_search_and_the_same_ones_each_time(data: DataSet, corpus: Corpus) -> None:
    parts = split(data, 2, 100, 0)
    sizes = [len(shown(json.loads(line), data)) for line in Lessons(corpus, 2, 0.5, 3).lines(parts)]
    assert set(sizes) == {1, 2}
    assert list(Lessons(corpus, 2, 0.5, 3).lines(parts)) == list(Lessons(corpus, 2, 0.5, 3).lines(parts))
    with pytest.raises(InputError, match="between 0 and 1"):
        Lessons(corpus, 2, 1.5, 0)


def test_the_gold_passage_is_found_by_the_question(data: DataSet, corpus: Corpus) -> None:
    asked = data.questions[3]
    found = run_sync(GoldPassage(corpus, {asked.question: asked.gold[0]}).asearch(asked.question))
    assert [(hit.passage.id, hit.rank) for hit in found] == [(asked.gold[0], 1)]
    with pytest.raises(InputError, match="no passage is known for the question 'another'"):
        run_sync(GoldPassage(corpus, {asked.question: asked.gold[0]}).asearch("another"))


def answers(data: DataSet, texts: Sequence[str]) -> list[Outcome]:
    return [Outcome(question.id, text, error="" if text else "it broke") for question, text in zip(data.questions, texts, strict=True)]


def test_rows_are_percent_and_gains_are_paired(data: DataSet) -> None:
    asked = split(data, 1, 4, 0).asked
    right = [question.answers[0] for question in asked.questions]
    given = dict.fromkeys(CASES, answers(asked, ["no"] * 4))
    given["gold"] = answers(asked, [right[0], "no", "no", "no"])
    given["gold+lora"] = answers(asked, [right[0], right[1], f"{right[2]} no", ""])
    found = {(row.case, row.metric): row for row in rows(compare(asked, given, list(SCORES.values())), FIGURES)}
    assert found["gold", "em"].value == 25
    assert found["gold+lora", "em"].value == pytest.approx(200 / 3)
    assert found["gold+lora", "f1"].value == pytest.approx(100 * (2 + 2 / 3) / 3)
    assert found["gold+lora", "match"].value == 100
    assert found["gold+lora", "failed"].value == 1
    assert found["gold+lora", "em_gain"].value == pytest.approx(100 / 3)  # over the three that have both
    assert found["gold+lora", "em_gain_min"].value <= found["gold+lora", "em_gain"].value <= found["gold+lora", "em_gain_max"].value
    assert found["rag+lora", "f1_gain"].value == 0
    assert ("gold", "em_gain") not in found
    assert {case for case, _ in found} == {*CASES, "train"}
    assert found["closed", "em"].unit == "%"
    assert found["train", "trained_share"].value == pytest.approx(3)
    assert found["train", "base_unchanged"].value == 1


def test_identity_sees_every_bit() -> None:
    model = tiny("llama")
    before = identity(model)
    assert identity(tiny("llama")) == before
    with torch.no_grad():
        weight = model.model.layers[1].mlp.down_proj.weight
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
    assert identity(model).split()[0] != before.split()[0]


def reader(model: Path, runs: Path, **changed: Any) -> Reader:
    prompts = [[{"role": "user", "content": f"w{n} w{n + 1}"}] for n in range(12)]
    lines = [json.dumps({"prompt": prompt, "answer": f"w{n}"}) for n, prompt in enumerate(prompts)]
    options = Options(**{"lr": 1e-2, "steps": 6, "batch": 2, "save_every": 2, "keep": "last", **changed})
    return Reader(str(model), lines, LoRA(2, 4.0, targets="all"), options, 64, runs)


def weights(trained: Reader) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(trained.adapter / "adapter_model.safetensors")


def test_a_reader_is_trained_once_and_leaves_the_base_as_it_was(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reader(model, tmp_path)
    figures = made.train()
    assert (figures.examples, figures.steps, figures.base_unchanged) == (12, 6, True)
    assert 0 < figures.trained_share < 1
    assert any(tensor.abs().max() > 0 for name, tensor in weights(made).items() if "lora_B" in name)
    monkeypatch.setattr(Reader, "_trained", None)
    assert reader(model, tmp_path).train() == figures
    assert reader(model, tmp_path, lr=2e-2).name != made.name


def test_a_stopped_reader_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reader(model, tmp_path / "whole")
    whole.train()
    steps: list[int] = []

    def stop(event: Any) -> None:
        steps.append(event.step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(domain_training, "_tell", stop)
    with pytest.raises(KeyboardInterrupt):
        reader(model, tmp_path / "stopped").train()
    again = reader(model, tmp_path / "stopped")
    assert again.train().steps == 6
    assert steps == [1, 2, 3, 3, 4, 5, 6]
    expected, found = weights(whole), weights(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def run(file: Path, model: Path, runs: Path, *more: str) -> dict[tuple[str, str], float]:
    given = ["--data", str(file.parents[1]), "--model", str(model), "--runs", str(runs), "--json", str(runs / "result.json")]
    small = ["--articles", "2", "--questions", "3", "--steps", "2", "--batch", "2", "--accumulate", "1", "--rank", "2"]
    domain_gain.main([*given, *small, *more])
    return {(row.case, row.metric): row.value for row in read_record(runs / "result.json").rows}


def test_the_whole_of_it_and_again(file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(file, model, tmp_path / "runs")
    assert {(case, metric) for case in CASES for metric in ("em", "em_min", "em_max", "f1", "f1_min", "f1_max")} <= set(first)
    assert first["train", "base_unchanged"] == 1
    assert first["gold", "gold_shown"] == 100
    assert all(first[case, "failed"] == 0 for case in CASES)
    capsys.readouterr()
    assert run(file, model, tmp_path / "runs") == first
    again = capsys.readouterr().out
    assert "step 1 of 2" not in again
    assert "0 of 3 asked" not in again
    run(file, model, tmp_path / "runs", "--lr", "0.01")
    changed = capsys.readouterr().out
    assert "step 2 of 2" in changed
    assert "gold+lora: 0 of 3 asked" in changed
    assert "gold: 0 of 3 asked" not in changed  # the bare model is as it was


def test_the_model_wears_the_reader_where_it_is_said(file: Path, model: Path, tmp_path: Path) -> None:
    run(file, model, tmp_path / "runs", "--lr", "0.5")
    (folder,) = (tmp_path / "runs").glob("answers-*")
    (trained,) = (tmp_path / "runs").glob("reader-*")
    with RunFolder(folder) as kept:
        said = {case: [outcome.answer for outcome in kept.outcomes(case).values()] for case in ("rag", "gold")}
        worn = {case: [*kept.outcomes(f"{case}+lora-{trained.name.partition('-')[2]}").values()] for case in said}
    for case, outcomes in worn.items():
        assert len(outcomes) == 3
        assert [outcome.answer for outcome in outcomes] != said[case]


def block(language: str) -> str:
    return PAGE.read_text("utf-8").partition(f"```{language}\n")[2].partition("```")[0]


def test_the_page_on_grafting_does_the_same(
    data: DataSet, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus.close()
    Path("corpus").rename("handbook")
    lines = [json.dumps({"question": question.question, "answers": [*question.answers]}) for question in data.questions]
    Path("questions.jsonl").write_text("\n".join([*lines, json.dumps({"question": "w7", "answers": ["nowhere"]})]), "utf-8")
    subprocess.run([sys.executable, "-c", block("python")], check=True, env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])})
    scripted = ScriptedModel("w1")
    pipe = Pipeline.from_yaml(block("yaml").replace("adapter: reader", f"model: {model}"))
    pipe.nodes["answer"].component.model = scripted
    learnt = [json.loads(line) for line in Path("train.jsonl").read_text("utf-8").splitlines()]
    assert len(learnt) + len(Path("asked.jsonl").read_text("utf-8").splitlines()) == len(lines)
    for lesson in learnt:
        pipe.run(lesson["prompt"][-1]["content"].rpartition("Question: ")[2])
        assert messages_json(scripted.prompts[-1]) == lesson["prompt"]


def test_the_data_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data takes the folder that holds xquad/"):
        domain_gain.main(["--data", str(tmp_path)])


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="../shared/data/xquad is not there")
def test_of_the_published_articles_a_quarter_is_held_out() -> None:
    data = load(PUBLISHED)
    given = domain_gain.options(["--data", "."])
    parts = split(data, given.articles, given.questions, given.seed)
    assert (len(parts.articles), len(parts.asked.questions)) == (36, 150)
    assert len(parts.learnt) >= given.steps * given.batch * given.accumulate  # no question is learnt twice
    held_out = {passage for question in parts.asked.questions for passage in question.gold}
    assert not held_out & {passage for question in parts.learnt for passage in question.gold}
