"""The handling of the server's process, with a stand-in for vLLM; tests/vllm starts the real one."""

from __future__ import annotations

import importlib.util
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from generators.models import server as module
from generators.models.server import serve_vllm
from rag.core.errors import InputError, MissingDependency, ModelUnavailable

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
        monkeypatch.setattr(module, "_command", lambda path, name, port, *rest: [sys.executable, "-c", script, str(port), str(note)])
        return note

    return use


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_the_server_and_its_workers_end_with_the_block(stand_in: Any) -> None:
    note = stand_in(HEALTHY)
    with serve_vllm("gpt2", wait=60) as url:
        assert url.endswith("/v1")
        assert urllib.request.urlopen(url.replace("/v1", "/health")).status == 200
        worker = int(note.read_text())
        assert alive(worker)
    for _ in range(200):  # it has its signal; a busy machine takes a moment to end it
        if not alive(worker):
            break
        time.sleep(0.05)
    assert not alive(worker)


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
    words = " ".join(module._command("/folder", "mine", 8001, True, options)[1:])
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
    assert "--worker-extension-cls" not in " ".join(module._command("/folder", "mine", 8001, False, {}))


def test_the_callers_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda: True)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    assert module._environment(False)["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert module._environment(True)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
