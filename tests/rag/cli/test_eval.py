from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lxml.html
import pytest

from rag.evaluate import runner
from tests.rag.cli.conftest import Rag
from tests.rag.evaluate.parts import asked

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve paragraphs with one question each, in SQuAD's form."""
    paragraphs = [
        {
            "context": f"The word {word} stands for {n}.",
            "qas": [{"id": f"q{n}", "question": f"{word} is {n}", "answers": [{"text": str(n)}]}],
        }
        for n, word in enumerate(WORDS, 1)
    ]
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"data": [{"title": "Words", "paragraphs": paragraphs}]}))
    return file


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """right.yaml answers everything; half.yaml is wrong on every second and fails on every fourth question."""
    monkeypatch.chdir(tmp_path)
    Path("right.yaml").write_text("nodes: {answer: {type: Numbered, log: right.log}}")
    Path("half.yaml").write_text("nodes: {answer: {type: Numbered, log: half.log, wrong: 2, fails: 4, healed: healed}}")
    return ["half.yaml", "right.yaml"]


def test_two_pipelines_side_by_side(rag: Rag, data: Path, files: list[str]) -> None:
    result = rag("eval", "--data", data, "--pipelines", *files, "--json", "figures.json", "--by", "answerable", "--differ", "half", "right")
    assert result.exit_code == 0, result.output
    assert "words, 12 questions: mean [95% interval]" in result.stdout
    assert "3 (25.0%)" in result.stdout
    assert "difference from half" in result.stdout
    assert "half and right differ in exact_match on 6 questions" in result.stdout
    assert "half: 3 failed: ModelUnavailable: the model is down" in result.stderr
    figures = json.loads(Path("figures.json").read_text())
    assert figures["settings"]["data"].endswith("/words.json")
    assert not figures["settings"]["data"].startswith("/")  # the folders of a machine are nobody's business
    half, right = figures["pipelines"]
    assert (half["name"], half["failed"], half["means"]["exact_match"]["mean"], half["means"]["exact_match"]["n"]) == ("half", 3, 6 / 9, 9)
    assert (right["failed"], right["means"]["exact_match"]["mean"]) == (0, 1.0)
    (difference,) = [d for d in figures["differences"] if d["metric"] == "exact_match"]
    assert (difference["n"], difference["mean"], difference["p"]) == (9, pytest.approx(3 / 9), 0.25)
    assert [group["value"] for group in figures["breakdown"]["answerable"]] == ["answerable"]
    assert len(figures["differing"]) == 6
    assert "wrong: 2" in half["configuration"]["pipeline"]


def test_the_report_holds_the_figures_and_the_questions(rag: Rag, data: Path, files: list[str]) -> None:
    result = rag("eval", "--data", data, *files, "--html", "report.html", "--json", "figures.json", "--by", "answerable")
    assert result.exit_code == 0, result.output
    (script,) = lxml.html.fromstring(Path("report.html").read_text("utf-8")).xpath("//script[@id='data']")
    report, figures = json.loads(script.text), json.loads(Path("figures.json").read_text())
    assert report["differences"] == figures["differences"]
    assert [p["means"] for p in report["pipelines"]] == [p["means"] for p in figures["pipelines"]]
    assert [p["configuration"] for p in report["pipelines"]] == [p["configuration"] for p in figures["pipelines"]]
    assert (report["breakdown"], report["settings"]) == (figures["breakdown"], figures["settings"])
    assert [q["outcomes"][1]["answer"] for q in report["questions"]] == [str(n) for n in range(1, 13)]


def test_again_it_asks_nothing_and_says_the_same(rag: Rag, data: Path, files: list[str]) -> None:
    first = rag("eval", "--data", data, "--pipelines", *files, "--metrics", "exact_match, f1", "--metrics", "calls")
    assert first.exit_code == 0, first.output
    calls = len(asked("half.log"))
    again = rag("eval", "--data", data, "--pipelines", *files, "--metrics", "exact_match,f1,calls")
    assert (again.stdout, len(asked("half.log"))) == (first.stdout, calls)
    Path("healed").touch()
    healed = rag("eval", "--data", data, *files, "--metrics", "exact_match", "--retry-failed")
    assert asked("half.log")[calls:] == ["four is 4", "eight is 8", "twelve is 12"]
    assert "25.0%" not in healed.stdout


def test_an_interrupt_says_how_to_go_on(rag: Rag, data: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = runner.evaluate

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if options["name"] == "right":
            options["on_progress"](7, 0, 12)
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(runner, "evaluate", interrupted)
    result = rag("eval", "--data", data, "--pipelines", *files, "--out", "kept")
    assert result.exit_code == 130
    assert "stopped; half: 12 of 12 questions kept, right: 7 of 12 questions kept in kept; run the same command to resume" in result.stderr
    monkeypatch.setattr(runner, "evaluate", whole)
    assert rag("eval", "--data", data, "--pipelines", *files, "--out", "kept").exit_code == 0
    assert len(asked("half.log")) == 12


def test_a_corpus_that_is_missing_is_made_of_the_data(rag: Rag, data: Path, files: list[str]) -> None:
    Path("found.yaml").write_text("nodes: {search: {type: BM25, corpus: {type: Corpus, path: shelf}, k: 3}}")
    arguments: list[str | Path] = [
        "eval",
        "--data",
        data,
        "--pipelines",
        "found.yaml",
        "--metrics",
        "recall@1",
        "--sample",
        "4",
        "--json",
        "figures.json",
    ]
    result = rag(*arguments)
    assert result.exit_code == 0, result.output
    assert "found: the corpus is not there; searching the words passages in results/words-sample4-seed0/corpus" in result.stderr
    assert json.loads(Path("figures.json").read_text())["pipelines"][0]["means"]["recall@1"]["mean"] == 1.0
    result = rag(*arguments, "--out", "other", "--corpus", "shelf")
    assert "indexed 12 passages of words into shelf" in result.stderr
    result = rag(*arguments, "--out", "other")
    assert (result.exit_code, result.stderr) == (0, ""), "the same corpus at the same place is the same run"


def test_what_is_there_to_measure_on(rag: Rag, data: Path, files: list[str]) -> None:
    formats = rag("eval", "--list")
    assert "squad" in formats.stdout
    assert "CC BY-SA 4.0" in formats.stdout
    found = rag("eval", "--list", data.parent)
    assert "12 questions, 12 passages" in found.stdout
    Path("empty").mkdir()
    result = rag("eval", "--list", "empty")
    assert (result.exit_code, "no data set of a known format" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["right.yaml"], "name --data FILE"),
        (["--data", "words.json"], "name --data FILE"),
        (["--data", "nowhere.json", "right.yaml"], "nowhere.json: there is no such file"),
        (["--data", "words.json", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["--data", "words.json", "right.yaml", "--metrics", "refusal"], "'refusal' fits none of the 12 questions"),
        (["--data", "words.json", "right.yaml", "--metrics", " , "], "--metrics: name at least one"),
        (["--data", "words.json", "right.yaml", "sub/right.yaml"], "two pipelines are called 'right'"),
        (["--data", "words.json", "right.yaml", "--differ", "right", "wrong"], "--differ wrong: there is no such pipeline"),
        (["--data", "words.json", "right.yaml", "--json", "nowhere/x.json"], "--json nowhere/x.json: name a file"),
        (["--data", "words.json", "right.yaml", "--html", "nowhere/x.html"], "--html nowhere/x.html: name a file"),
        (["--data", "words.json", "right.yaml", "--html", "x", "--json", "./x"], "--json and --html both name x"),
        (["--data", "words.json", "right.yaml", "--by", "colour"], "no question has 'colour'"),
        (["--data", "words.json", "right.yaml", "--sample", "13"], "cannot draw a sample of 13"),
        (["--data", "words.json", "right.yaml", "--out", "right.yaml"], "right.yaml: this is a file"),
        (["--data", "words.json", "right.yaml", "--format", "bogus"], "no data format 'bogus'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(rag: Rag, data: Path, files: list[str], arguments: list[str], says: str) -> None:
    result = rag("eval", *arguments)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
    assert not Path("right.log").exists()


def test_another_pipeline_under_the_same_name_is_refused(rag: Rag, data: Path, files: list[str]) -> None:
    assert rag("eval", "--data", data, "--pipelines", *files).exit_code == 0
    Path("right.yaml").write_text("nodes: {answer: {type: Numbered, log: right.log, wrong: 5}}")
    result = rag("eval", "--data", data, "--pipelines", *files)
    assert (result.exit_code, "a run 'right' of another pipeline" in result.stderr) == (2, True)
    assert len(asked("right.log")) == 12
