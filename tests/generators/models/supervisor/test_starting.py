"""What is checked before a server is started, and what it is given."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generators.models.supervisor import Supervisor
from rag.core.errors import ConfigError, InputError, MissingDependency, ModelUnavailable
from tests.generators.models.supervisor.parts import QUICK, Fake, run, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def test_the_log_turns_and_a_temporary_one_goes(fake: Fake) -> None:
    fake.plan("loud=3000")

    async def work() -> None:
        async with fake.supervisor(log_bytes=50_000) as engine:
            await engine.ready()
            assert engine.log == fake.folder / "log"
        logs = sorted(fake.folder.glob("log*"))
        assert [log.name for log in logs] == ["log", "log.1", "log.2", "log.3"]
        assert all(log.stat().st_size < 51_000 for log in logs)
        assert "line 002999" in "".join(log.read_text() for log in logs)
        async with fake.supervisor(log=None) as engine:
            await engine.ready()
            assert "line 002999" in engine.log.read_text()
        assert not engine.log.parent.exists()

    run(work())


def test_the_server_gets_what_it_needs_and_no_secrets(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRAFT_KEY", "OPENAI_API_KEY", "DATABASE_URL", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY", "MODEL_KEY", "MINE"):
        monkeypatch.setenv(name, f"secret of {name}")
    for name in ("CUDA_VISIBLE_DEVICES", "HF_TOKEN", "VLLM_LOGGING_LEVEL", "https_proxy"):
        monkeypatch.setenv(name, name.lower())

    async def life(**options: Any) -> dict[str, str]:
        async with fake.supervisor(**options) as engine:
            await engine.ready()
        environment: dict[str, str] = fake.lives()[-1]["environment"]
        return environment

    async def work() -> None:
        plain = await life()
        assert "secret" not in json.dumps(plain)
        assert {name: plain.get(name) for name in ("CUDA_VISIBLE_DEVICES", "HF_TOKEN", "VLLM_LOGGING_LEVEL", "https_proxy")} == {
            "CUDA_VISIBLE_DEVICES": "cuda_visible_devices",
            "HF_TOKEN": "hf_token",
            "VLLM_LOGGING_LEVEL": "vllm_logging_level",
            "https_proxy": "https_proxy",
        }
        assert plain["PATH"] == os.environ["PATH"]
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in plain
        keyed = await life(api_key_env="MODEL_KEY", passes=("MINE", "NOT_THERE"), adapters=True)
        assert (keyed["VLLM_API_KEY"], keyed["MINE"]) == ("secret of MODEL_KEY", "secret of MINE")
        assert keyed["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
        assert "MODEL_KEY" not in keyed

    run(work())


def test_the_key_is_not_quoted(fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MODEL_KEY", "everything")
    fake.plan("exit=2")

    async def work() -> None:
        async with fake.supervisor(api_key_env="MODEL_KEY") as engine:
            await until(lambda: engine.state == "failed")

    run(work())
    assert "| out of ***" in caplog.text
    assert "everything" not in caplog.text


def test_the_command_is_that_of_a_server_of_ones_own(fake: Fake) -> None:
    engine = fake.supervisor(adapters=True, options={"max_model_len": 100, "max-loras": 2})
    quiet = {"disable-access-log-for-endpoints": "/health"}
    assert fake.commands == [("gpt2", "gpt2", engine.port, True, {**quiet, "max-model-len": 100, "max-loras": 2})]
    asyncio.run(engine.stop())
    asyncio.run(fake.supervisor(options={"disable_access_log_for_endpoints": "/ping"}).stop())
    assert fake.commands[1][-1] == {"disable-access-log-for-endpoints": "/ping"}


def test_what_can_be_known_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[gpu\]"):
        Supervisor("gpt2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InputError, match="1 to 65535"):
        Supervisor("gpt2", port=0)
    with pytest.raises(InputError, match=r"no model '\./missing'"):
        Supervisor("./missing")
    with pytest.raises(InputError, match=r"no config\.json"):
        Supervisor(str(tmp_path))
    with pytest.raises(InputError, match="not yours to give"):
        Supervisor("gpt2", options={"port": 1})
    with pytest.raises(InputError, match="log_bytes"):
        Supervisor("gpt2", log_bytes=0)
    with pytest.raises(ConfigError, match=r"cannot be written to .*missing/log: No such file.*; name a file"):
        Supervisor("gpt2", log=tmp_path / "missing" / "log")
    with pytest.raises(ConfigError, match=r"NO_SUCH_KEY.*is not set"):
        Supervisor("gpt2", api_key_env="NO_SUCH_KEY")


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_is_taken(fake: Fake, shared: bool) -> None:
    with socket.socket() as other:
        if shared:  # as another vLLM of the same user would hold it
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken .*another port"):
            fake.supervisor(port=port)

    async def work() -> None:
        async with fake.supervisor(port=port) as engine:
            await engine.ready()
            assert engine.port == port
            with pytest.raises(ConfigError, match="is taken"):
                fake.supervisor(port=port)
        async with fake.supervisor(port=port) as engine:  # given back
            await engine.ready()

    run(work())


def test_the_port_is_held_until_the_stop(fake: Fake) -> None:
    engine = fake.supervisor()
    for held in (True, False):
        with socket.socket() as other:
            try:
                other.bind(("127.0.0.1", engine.port))
            except OSError:
                assert held
            else:
                assert not held
        asyncio.run(engine.stop())


def test_another_program_at_the_port_is_not_taken_for_the_server(fake: Fake) -> None:
    fake.plan("ok")

    async def work() -> None:
        engine = fake.supervisor(patience=replace(QUICK, deaths=2))
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", engine.port))
            other.listen()
            await engine.start()
            with pytest.raises(ModelUnavailable, match="another program listens on port"):
                await engine.ready()
        assert fake.lives() == []
        await engine.stop()

    run(work())
