"""Every example pipeline as a person runs it, on a real server: `rag ask` with the question of the file's own comment, and `rag serve`."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from generators.models.child import free_port
from rag.cli.main import app
from rag.core.pipeline import Pipeline
from rag.serve.app import create_app

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(file.stem for file in (EXAMPLES / "pipelines").glob("*.yaml"))
TRACED = {
    "adaptive_rag": ("complexity ",),
    "chain_of_note": ("! '",),
    "crag": ("; scores: ",),
    "decompose": ("part 1: ", "no simpler question"),
    "flare": ("written from the first retrieval", "the lowest probability"),
    "flare_instruct": ("the model searches for", "no document was shown"),
    "hyde": ("document 1 of ",),
    "ircot": ("thought 1: ",),
    "iter_retgen": ("round 1: query",),
    "self_ask": ("follow-up",),
    "self_rag": ("score ",),
}
"""What a method's trace must tell, one of these: its queries, thoughts, triggers or scores. Whether a tool is called is up to the model."""


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory, vllm_url: str) -> Path:
    """The example files, with the handbook's corpus and the server's address in place of what they name."""
    folder = tmp_path_factory.mktemp("examples")
    made = CliRunner().invoke(app, ["index", str(EXAMPLES / "handbook" / "docs"), "--out", str(folder / "handbook")])
    assert made.exit_code == 0, made.output
    model = f'{{type: VLLM, url: "{vllm_url}", timeout: 300}}'
    for file in (EXAMPLES / "pipelines").glob("*.yaml"):
        text = file.read_text("utf-8").replace("path: handbook", f"path: {folder / 'handbook'}")
        text, replaced = re.subn(r"\{type: (Local|VLLM)[^}]*\}", model, text)
        assert replaced, f"{file} names no model"
        (folder / file.name).write_text(text, "utf-8")
    return folder


def question_of(name: str) -> str:
    """What the file's first lines propose to ask."""
    found = re.search(r'rag ask "([^"]+)"', (EXAMPLES / "pipelines" / f"{name}.yaml").read_text("utf-8"))
    return found.group(1) if found else "How long may a suit be worn outside?"


@pytest.mark.parametrize("name", NAMES)
def test_rag_ask(pipelines: Path, name: str) -> None:
    asked = CliRunner().invoke(app, ["ask", question_of(name), "--pipeline", str(pipelines / f"{name}.yaml"), "--trace"])
    assert asked.exit_code == 0, asked.output
    assert asked.stdout.strip()
    assert "calls" in asked.stderr
    assert any(word in asked.stderr for word in TRACED.get(name, ("",)))


@pytest.fixture(scope="module")
def address(pipelines: Path) -> Iterator[str]:
    """All examples behind one `rag serve` application, each a model of its own."""
    served = create_app({name: Pipeline.from_yaml(pipelines / f"{name}.yaml") for name in NAMES})
    server = uvicorn.Server(uvicorn.Config(served, port=(port := free_port()), log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


@pytest.mark.parametrize("name", NAMES)
def test_rag_serve(address: str, name: str) -> None:
    body = {"model": name, "stream": True, "messages": [{"role": "user", "content": question_of(name)}]}
    chunks = []
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=600.0) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
    assert not [chunk["error"] for chunk in chunks if "error" in chunk]
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    last = chunks[-1]
    assert (last["graft"].get("text") or text).strip()
    # A small model may fill its budget: the last chunk says so, and a method that was cut is no failure.
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    events = [chunk["graft"]["event"]["type"] for chunk in chunks[:-1] if "graft" in chunk]
    if last["graft"].get("sources"):
        assert "retrieved" in events
