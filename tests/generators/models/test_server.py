"""The handling of the server's process, with a stand-in for vLLM; tests/vllm starts the real one."""

from __future__ import annotations

import importlib.util
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from generators.models import server as module
from generators.models.server import serve_vllm
from rag.core.errors import InputError, MissingDependency, ModelUnavailable
from tests.generators.models.processes import alive, ended

HEALTHY = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(str(child.pid))
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a given script instead of vLLM; the script's arguments are the port and a file to write to."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def use(script: str) -> Path:
        note = tmp_path / "note"
        monkeypatch.setattr(module, "command_of", lambda path, name, port, *rest: [sys.executable, "-c", script, str(port), str(note)])
        return note

    return use


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_the_server_and_its_workers_end_with_the_block(stand_in: Any) -> None:
    note = stand_in(HEALTHY)
    with serve_vllm("gpt2", wait=60) as url:
        assert url.endswith("/v1")
        assert urllib.request.urlopen(url.replace("/v1", "/health")).status == 200
        worker = int(note.read_text())
        assert alive(worker)
    assert ended([worker])  # it has its signal; a busy machine takes a moment


def test_a_server_that_dies_shows_its_last_words(stand_in: Any) -> None:
    stand_in("print('out of everything'); raise SystemExit(3)")
    with pytest.raises(ModelUnavailable, match=r"(?s)status 3.*out of everything"), serve_vllm("gpt2", wait=60):
        raise AssertionError("it never came up")


def test_a_server_that_never_gets_healthy(stand_in: Any, tmp_path: Path) -> None:
    stand_in("import time; print('still thinking', flush=True); time.sleep(600)")
    log = tmp_path / "log"
    with pytest.raises(ModelUnavailable, match=r"not healthy after 1 s.*raise `wait`"), serve_vllm("gpt2", wait=1, log=log):
        raise AssertionError("it never came up")
    assert log.exists()


def test_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[gpu\]"), serve_vllm():
        raise AssertionError("there is nothing to run")


def test_a_port_out_of_range(stand_in: Any) -> None:
    with pytest.raises(InputError, match="1 to 65535"), serve_vllm("gpt2", port=70000):
        raise AssertionError("there is no such port")


@pytest.mark.parametrize("cpu", [True, False])
def test_flags(monkeypatch: pytest.MonkeyPatch, cpu: bool) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda: cpu)
    options = {"max_model_len": 100, "enforce_eager": True, "enable_prefix_caching": False}
    words = " ".join(module.command_of("/folder", "mine", 8001, True, options)[1:])
    assert words.startswith("-m vllm.entrypoints.openai.api_server --model /folder --served-model-name mine --host 127.0.0.1 --port 8001")
    assert "--max-model-len 100" in words
    assert "--enforce-eager" in words
    assert "--no-enable-prefix-caching" in words
    assert "--enable-lora --max-lora-rank 64" in words
    assert "--lora-target-modules q_proj k_proj" in words
    assert "lm_head" not in words
    assert ("--dtype float32" in words) == cpu
    assert ("--no-enable-chunked-prefill" in words) == cpu
    assert ("--worker-extension-cls generators.models.cpu_lora_worker.BareRows" in words) == cpu
    assert "--worker-extension-cls" not in " ".join(module.command_of("/folder", "mine", 8001, False, {}))


def test_the_callers_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda: True)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    assert module.environment_of(False, os.environ)["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert module.environment_of(True, os.environ)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


@pytest.mark.parametrize("name", ["max-model-len", "max_model_len", "dtype", "enable-prefix-caching", "no-enable-chunked-prefill"])
def test_options_that_may_be_given(name: str) -> None:
    for value in (4096, 0.9, -1, True, "-1.5", "auto", '{"method": "ngram"}', ["q_proj", "k_proj"]):
        module.check_options({name: value})


@pytest.mark.parametrize(
    "name", ["", "-", "--dtype", "dtype ", "dtype=", "a b", "a--b", "max-model-len2", "dtype\n", "speculative-config.model"]
)
def test_names_that_are_no_options(name: str) -> None:
    with pytest.raises(InputError, match="letters and dashes"):
        module.check_options({name: "x"})


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "port",
        "PORT",
        "por",
        "host",
        "uds",
        "api-key",
        "api_key",
        "served-model-name",
        "ssl-keyfile",
        "root-path",
        "config",
        "serv",
    ],
)
def test_options_that_would_hide_the_server(name: str) -> None:
    with pytest.raises(InputError, match="not yours to give"):
        module.check_options({name: "x"})


@pytest.mark.parametrize("value", ["", "--port", "-x", "-", "a\0b", "a\nb", ["fine", "--host"], ["fine", ""]])
def test_values_that_are_none(value: Any) -> None:
    with pytest.raises(InputError, match=r"another option|empty value or control"):
        module.check_options({"dtype": value})


def test_what_vllm_needs_of_an_environment() -> None:
    needed = {"PATH": "p", "CUDA_VISIBLE_DEVICES": "0", "HF_TOKEN": "t", "VLLM_CPU_KVCACHE_SPACE": "2", "no_proxy": "n", "PYTHONPATH": "p"}
    others = {"VLLM_API_KEY": "k", "OPENAI_API_KEY": "k", "GRAFT_ADMIN": "k", "MY_PATH": "k", "PATHS": "k", "DATABASE_URL": "k", "HF": "k"}
    assert module.needed_of(needed | others) == needed
