from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import InputError, ModelUnavailable
from tests.rag.cli.conftest import Rag
from tests.rag.serve.parts import Scripted

QUESTION = "How long may a suit be worn outside?"


def test_the_answer_then_sources_and_citations(rag: Rag, shelf: Path, model: Scripted) -> None:
    result = rag("ask", QUESTION, "--corpus", shelf)
    assert result.exit_code == 0, result.stderr
    text, _, sources = result.stdout.partition("\n\nSources\n")
    assert text == model.text
    assert "[1] Suits  safety/suits.md  score " in sources
    assert "cited, valid" in sources
    assert "A suit may be worn outside for 90 minutes." in sources


def test_an_unsupported_citation_is_marked(rag: Rag, shelf: Path, model: Scripted) -> None:
    model.text = "The moon is made of 7 cheeses [1]."
    result = rag("ask", QUESTION, "--corpus", shelf)
    assert "cited, not supported" in result.stdout
    assert "note: " in result.stdout


def test_json_is_one_object(rag: Rag, shelf: Path, model: Scripted) -> None:
    result = rag("ask", QUESTION, "--corpus", shelf, "--json", "--trace")
    data = json.loads(result.stdout)
    assert data["answer"] == model.text
    assert data["question"] == QUESTION
    assert data["sources"][0]["document"] == "safety/suits.md"
    assert data["citations"][0]["valid"] is True
    assert data["usage"].pop("retrievals") >= 1
    assert data["usage"] == {"calls": 1, "prompt_tokens": 40, "generated_tokens": 10}
    assert data["trace"]["children"][0]["node"] == "answer"


def test_trace_shows_the_steps(rag: Rag, shelf: Path, model: Scripted) -> None:
    result = rag("ask", QUESTION, "--corpus", shelf, "--trace")
    assert "call search" in result.stderr
    assert "call search" not in result.stdout


@pytest.mark.parametrize("arguments", [["-"], []])
def test_the_question_may_come_from_stdin(rag: Rag, shelf: Path, model: Scripted, arguments: list[str]) -> None:
    result = rag("ask", *arguments, "--corpus", shelf, input=f"{QUESTION}\n")
    assert result.stdout.startswith(model.text)
    assert QUESTION in str(model.prompts[0])


@pytest.mark.parametrize(("arguments", "input"), [([""], None), ([" \n"], None), (["-"], ""), ([], "")])
def test_an_empty_question_is_refused(rag: Rag, shelf: Path, model: Scripted, arguments: list[str], input: str | None) -> None:
    result = rag("ask", *arguments, "--corpus", shelf, input=input)
    assert (result.exit_code, result.stderr) == (2, "error: the question is empty\n")
    assert model.prompts == []


def test_the_filter_narrows_the_sources(rag: Rag, shelf: Path, model: Scripted) -> None:
    found = json.loads(rag("ask", "suit capsule minutes", "--corpus", shelf, "--json").stdout)
    assert {s["document"] for s in found["sources"]} == {"safety/suits.md", "travel.md"}
    found = json.loads(
        rag("ask", "suit capsule minutes", "--corpus", shelf, "--json", "--filter", "year>=2040", "--filter", "lang=en").stdout
    )
    assert {s["document"] for s in found["sources"]} == {"safety/suits.md"}
    result = rag("ask", QUESTION, "--corpus", shelf, "--filter", "lang")
    assert (result.exit_code, "write key=value" in result.stderr) == (2, True)


def test_questions_in_turn_on_a_terminal(rag: Rag, shelf: Path, model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = iter([QUESTION, "What does the capsule carry?", ""])
    monkeypatch.setattr("rag.cli.ask._on_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: next(questions))
    result = rag("ask", "--corpus", shelf)
    assert result.exit_code == 0
    assert result.stdout.count(model.text) == 2


def test_a_failed_question_does_not_end_the_turn(rag: Rag, shelf: Path, model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = iter(["x" * 100, QUESTION])

    def ask(_: str) -> str:
        model.error = ModelUnavailable("http://here is down") if not model.prompts else None
        try:
            return next(questions)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("rag.cli.ask._on_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", ask)
    result = rag("ask", "--corpus", shelf)
    assert result.exit_code == 0
    assert "error: http://here is down" in result.stderr


def test_what_to_ask_must_be_named_and_only_once(rag: Rag, shelf: Path, tmp_path: Path) -> None:
    assert "--corpus FOLDER" in rag("ask", QUESTION).stderr
    result = rag("ask", QUESTION, "--pipeline", tmp_path / "p.yaml", "--corpus", shelf, "-k", "3")
    assert (result.exit_code, result.stderr[:20]) == (2, "error: --corpus, --k")
    result = rag("ask", QUESTION, "--corpus", tmp_path / "nowhere")
    assert (result.exit_code, "there is no corpus here" in result.stderr) == (2, True)


def test_a_pipeline_file_is_asked(rag: Rag, shelf: Path, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {shelf}}}, k: 1}}\n")
    result = rag("ask", QUESTION, "--pipeline", file)
    assert result.exit_code == 0
    assert "safety/suits.md" in result.stdout
    file.write_text("nodes: {x: {type: os.system}}")
    result = rag("ask", QUESTION, "--pipeline", file)
    assert (result.exit_code, "no component 'os.system'" in result.stderr) == (2, True)


def test_a_model_that_is_down_is_one_line(rag: Rag, shelf: Path, model: Scripted) -> None:
    model.error = ModelUnavailable("http://localhost:8000/v1 does not answer")
    result = rag("ask", QUESTION, "--corpus", shelf)
    assert (result.exit_code, result.stderr) == (2, "error: http://localhost:8000/v1 does not answer\n")


def test_control_characters_of_a_model_do_not_reach_the_terminal(rag: Rag, shelf: Path, model: Scripted) -> None:
    model.text = "\x1b]0;owned\x07 90 minutes\r\n"
    result = rag("ask", QUESTION, "--corpus", shelf)
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--url", "http://x/v1"], "--engine vllm"),
        (["--engine", "openai"], "--url and --model"),
        (["--engine", "openai", "--url", "http://x/v1"], "--url and --model"),
    ],
)
def test_options_that_do_not_fit_together(rag: Rag, shelf: Path, arguments: list[str], says: str) -> None:
    result = rag("ask", QUESTION, "--corpus", shelf, *arguments)
    assert (result.exit_code, says in result.stderr) == (2, True)


def test_each_engine_makes_its_model() -> None:
    from rag.cli.options import make_model

    assert type(make_model(None, None, None, None)).__name__ == "Local"
    vllm: Any = make_model("vllm", "http://gpu:8000/v1", "m", None)
    assert (type(vllm).__name__, vllm.url, vllm.model) == ("VLLM", "http://gpu:8000/v1", "m")
    other: Any = make_model("openai", "http://there/v1", "m", "MY_KEY")
    assert (type(other).__name__, other.url, other.model, other.api_key_env) == ("OpenAICompatible", "http://there/v1", "m", "MY_KEY")


def test_conditions() -> None:
    from rag.cli.conditions import parse_conditions

    given = ["lang=en", "year>=2020", "year<2024", "team=ops", "team=hr", 'code="007"', "draft!=true", "note=a=b", "size=1e999"]
    assert parse_conditions(given) == {
        "lang": "en",
        "year": {"gte": 2020, "lt": 2024},
        "team": ["ops", "hr"],
        "code": "007",
        "draft": {"ne": True},
        "note": "a=b",
        "size": "1e999",
    }
    for bad in (["lang"], ["=en"], [">3"], ["a>1", "a>2"], ["a=1", "a>0"]):
        with pytest.raises(InputError, match="--filter"):
            parse_conditions(bad)
