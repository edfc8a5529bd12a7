"""The command against a real vLLM server: the handbook is indexed, asked about and served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rag import VLLM, Cited, Corpus, Pipeline
from rag.cli.default_pipeline import build

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"
RAG = Path(sys.executable).with_name("rag")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "handbook"
    subprocess.run([RAG, "index", HANDBOOK / "docs", "--out", folder], check=True, capture_output=True)
    return folder


def ask(corpus: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(RAG),
        "ask",
        "How many kilograms can the Limpet lift?",
        "--corpus",
        str(corpus),
        "--engine",
        "vllm",
        "--url",
        url,
        *arguments,
    ]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_rag_ask_answers_from_the_handbook(corpus: Path, vllm_url: str) -> None:
    done = ask(corpus, vllm_url, "--json", "--max-tokens", "64")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "520" in answer["answer"]
    assert any(citation["valid"] for citation in answer["citations"])


def test_rag_ask_streams_the_same_answer(corpus: Path, vllm_url: str) -> None:
    streamed = ask(corpus, vllm_url, "--max-tokens", "64")
    whole = json.loads(ask(corpus, vllm_url, "--json", "--max-tokens", "64").stdout)
    assert streamed.returncode == 0, streamed.stderr
    assert streamed.stdout.startswith(whole["answer"].splitlines()[0])


def test_questions_in_flight_against_the_server(corpus: Path, vllm_url: str) -> None:
    questions = [json.loads(line)["question"] for line in (HANDBOOK / "questions.jsonl").read_text("utf-8").splitlines()][:24]
    pipe: Pipeline = build(Corpus.open(corpus), VLLM(vllm_url), max_tokens=32)
    assert isinstance(pipe.nodes["answer"].component, Cited)
    runs = pipe.map(questions, in_flight=24)
    assert [run.index for run in runs] == list(range(24))
    assert all(run.ok for run in runs), [run.error for run in runs if not run.ok]
    assert all(run.value.text for run in runs)
