from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.rag.cli.conftest import Rag
from tests.rag.serve.parts import Scripted


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What `rag serve` hands to uvicorn, which is not started."""
    import uvicorn

    given: dict[str, Any] = {}
    loggers = [logging.getLogger(name) for name in (None, "graft", "uvicorn", "uvicorn.access")]
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]  # the command sets up its process's log

    def run(app: Any, **options: Any) -> None:
        given.update(options, app=app)

    monkeypatch.setattr(uvicorn, "run", run)
    yield given
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


def test_a_corpus_is_served_and_retrieves_more_than_the_model_reads(rag: Rag, shelf: Path, model: Scripted, served: dict[str, Any]) -> None:
    result = rag("serve", "--corpus", shelf, "-k", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (served["host"], served["port"]) == ("127.0.0.1", 8080)
    http = TestClient(served["app"], base_url="http://localhost")
    body = {"model": "graft", "messages": [{"role": "user", "content": "suit capsule minutes"}]}
    assert len(http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["graft"]["sources"]) == 1
    assert len(http.post("/v1/retrieve", json={"query": "suit capsule minutes", "k": 50}).json()["hits"]) == 2
    assert http.get("/healthz").json()["passages"] == 2


def test_the_key_comes_from_the_environment(
    rag: Rag, shelf: Path, model: Scripted, served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = rag("serve", "--corpus", shelf, "--api-key-env", "NO_SUCH_KEY")
    assert (result.exit_code, "NO_SUCH_KEY" in result.stderr, served) == (2, True, {})
    monkeypatch.setenv("MY_KEY", "secret-value-that-is-long")
    result = rag("serve", "--corpus", shelf, "--api-key-env", "MY_KEY", "--host", "0.0.0.0")
    assert (result.exit_code, result.stderr) == (0, "")
    assert TestClient(served["app"]).get("/v1/models").status_code == 401
    monkeypatch.setenv("MY_KEY", "password")
    assert "short enough to be guessed" in rag("serve", "--corpus", shelf, "--api-key-env", "MY_KEY").stderr


def test_keys_of_a_file_open_what_they_are_for(rag: Rag, shelf: Path, model: Scripted, served: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = rag("keys", "add", "web", "--file", file).stdout.strip()
    assert rag("serve", "--corpus", shelf, "--keys", file, "--host", "0.0.0.0").exit_code == 0
    http = TestClient(served["app"], headers={"Authorization": f"Bearer {secret}"})
    assert [http.get(path).status_code for path in ("/v1/models", "/metrics", "/v1/documents")] == [200, 403, 403]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "rag.example.org"])
def test_an_open_address_without_a_key_is_refused(host: str, rag: Rag, shelf: Path, model: Scripted, served: dict[str, Any]) -> None:
    result = rag("serve", "--corpus", shelf, "--host", host)
    assert (result.exit_code, served) == (2, {})
    assert f"anyone who reaches {host}:8080 could ask" in result.stderr
    assert "rag keys add" in result.stderr


def test_only_this_machines_names_are_answered(rag: Rag, shelf: Path, model: Scripted, served: dict[str, Any]) -> None:
    assert rag("serve", "--corpus", shelf, "--allow-host", "rag.example.org").exit_code == 0
    asked = {name: TestClient(served["app"], base_url=f"http://{name}").get("/v1/models").status_code for name in NAMES}
    assert asked == {"localhost": 200, "127.0.0.1:8080": 200, "rag.example.org": 200, "evil.example.org": 421}


NAMES = ("localhost", "127.0.0.1:8080", "rag.example.org", "evil.example.org")


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--allow-host", "http://x", "no name of a host"),
        ("--allow-origin", "*", "no origin"),
        ("--trust-proxy", "everyone", "trusted proxies"),
        ("--rate", "0", "requests per minute"),
        ("--keys", "nosuch.json", "nosuch.json"),
    ],
)
def test_wrong_doors_are_refused_at_the_start(
    option: str, value: str, named: str, rag: Rag, shelf: Path, model: Scripted, served: dict[str, Any]
) -> None:
    result = rag("serve", "--corpus", shelf, option, value, *(("--rate", "5") if option == "--trust-proxy" else ()))
    assert (result.exit_code, served) == (2, {})
    assert named in result.stderr


def test_a_model_server_is_started_with_the_options_that_are_given(
    rag: Rag, shelf: Path, served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, dict[str, Any]]] = []

    class Engine:
        url, state, restarts = "http://127.0.0.1:7/v1", "starting", 0

        def __init__(self, model: str, **options: Any) -> None:
            made.append((model, options))

    monkeypatch.setattr("generators.models.supervisor.Supervisor", Engine)
    given = ("--engine", "vllm", "--start", "--engine-option", "max-model-len=2048", "--engine-option", "enforce-eager=true", "--adapters")
    assert rag("serve", "--corpus", shelf, *given, "--slots", "2").exit_code == 0
    ((model, options),) = made
    flags = {"max-loras": 2, "max-lora-rank": 16, "max-model-len": "2048", "enforce-eager": True}
    assert (model, options) == ("smollm2", {"adapters": True, "options": flags, "log": None, "api_key_env": None})
    reply = TestClient(served["app"], base_url="http://localhost").get("/readyz")
    assert (reply.status_code, reply.json()["engine"]) == (503, "starting")


@pytest.mark.parametrize(
    "options",
    [
        ("--engine-option", "a=1"),
        ("--engine-log", "x.log"),
        ("--start",),
        ("--start", "--engine", "local"),
        ("--start", "--engine", "vllm", "--url", "http://localhost:1/v1"),
        ("--start", "--engine", "vllm", "--engine-option", "max-model-len"),
        ("--start", "--engine", "vllm", "--engine-option", "host=0.0.0.0"),
    ],
)
def test_options_of_a_model_server_that_do_not_fit_are_refused(
    options: tuple[str, ...], rag: Rag, shelf: Path, served: dict[str, Any]
) -> None:
    result = rag("serve", "--corpus", shelf, *options)
    assert (result.exit_code, served) == (2, {})


def test_adapters_of_a_registry_are_offered(rag: Rag, shelf: Path, model: Scripted, served: dict[str, Any], tmp_path: Path) -> None:
    assert rag("serve", "--corpus", shelf, "--registry", tmp_path / "registry").exit_code == 0
    http = TestClient(served["app"], base_url="http://localhost")
    assert http.get("/v1/adapters").json() == {"object": "list", "data": []}
    assert rag("serve", "--corpus", shelf).exit_code == 0
    assert TestClient(served["app"], base_url="http://localhost").get("/v1/adapters").status_code == 404


def test_what_to_serve_must_be_named_once(rag: Rag, shelf: Path, tmp_path: Path, served: dict[str, Any]) -> None:
    assert rag("serve").exit_code == 2
    result = rag("serve", tmp_path / "p.yaml", "--corpus", shelf)
    assert (result.exit_code, "--corpus" in result.stderr) == (2, True)
    assert served == {}


def test_a_corpus_that_is_not_there_fails_at_the_start(rag: Rag, tmp_path: Path, served: dict[str, Any]) -> None:
    (tmp_path / "p.yaml").write_text(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {tmp_path / 'nowhere'}}}}}\n")
    result = rag("serve", tmp_path / "p.yaml")
    assert (result.exit_code, "there is no corpus here" in result.stderr, served) == (2, True, {})


def test_a_real_server_answers_and_stops_on_sigterm(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {shelf}}}, k: 1}}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rag.cli.main", "serve", str(tmp_path / "p.yaml"), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                health = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30))
                break
            except urllib.error.URLError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert health == {"status": "ok", "passages": 2, "models": []}
        body = json.dumps({"model": "graft", "stream": True, "messages": [{"role": "user", "content": "capsule"}]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read().decode()
        assert "travel.md" in text
        assert text.endswith("data: [DONE]\n\n")
    finally:
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
    assert "Traceback" not in stderr
    assert process.returncode in (0, -signal.SIGTERM)
