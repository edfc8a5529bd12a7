"""`benchmarks.context_server` on a scripted server: both sides are given the same tokens in turns, and nothing is done twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks import context_server, context_store
from benchmarks.context_server import CORES, THREADS, spelt, times
from benchmarks.context_ways import FULL, STITCHED, Ways
from benchmarks.results import read_record
from generators.models.http import HttpClient
from generators.models.stitched.encoder import LocalEncoder
from rag.core.errors import ModelError
from tests.benchmarks.test_context_store import ASKED, data, encoder, model, ways  # noqa: F401
from tests.generators.models.conftest import tiny_folder  # noqa: F401
from tests.generators.models.vllm_contexts.engine import Engine
from tests.generators.models.vllm_contexts.engine import model as on


def test_both_sides_read_the_same_tokens_in_turns_and_nothing_that_was_kept(
    ways: Ways,  # noqa: F811
    encoder: LocalEncoder,  # noqa: F811
    model: Path,  # noqa: F811
) -> None:
    engine, prompt = Engine(encoder.decoder, str(model)), spelt(ways, ASKED)
    assert prompt.question == len(prompt.tokens) - prompt.borders[-1] > 0
    found = times(on(engine), prompt, 3)
    assert {way: len(seconds) for way, seconds in found.items()} == {FULL: 3, STITCHED: 3}
    assert all(second > 0 for seconds in found.values() for second in seconds)
    assert {tuple(body["prompt"]) for body in engine.bodies} == {prompt.tokens}
    assert len({body["cache_salt"] for body in engine.bodies}) == len(engine.bodies) == 8
    claims = [body.get("kv_transfer_params") for body in engine.bodies]
    assert [claim is not None for claim in claims] == [True, False, False, True] * 2
    assert claims[0] == {"graft": {"borders": list(prompt.borders)}}


def test_what_was_not_loaded_is_no_time(ways: Ways, encoder: LocalEncoder, model: Path) -> None:  # noqa: F811
    for fault in ("refused", "silent"):
        with pytest.raises(ModelError, match="did not load"):
            times(on(Engine(encoder.decoder, str(model), fault=fault)), spelt(ways, ASKED), 1)


def test_a_server_is_started_for_what_is_not_there_yet_on_cores_that_are_named(
    data: Path,  # noqa: F811
    encoder: LocalEncoder,  # noqa: F811
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, started = Engine(encoder.decoder, str(model)), []
    made = HttpClient.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.transport = httpx.MockTransport(engine)

    @contextmanager
    def serve(name: str, **options: Any) -> Iterator[str]:
        started.append((name, os.environ[THREADS], sorted(options)))
        yield "http://models.example:8000/v1"
        started.append("ended")

    monkeypatch.setattr(HttpClient, "__init__", init)
    monkeypatch.setattr(context_server, "serve_vllm", serve)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.delenv(THREADS, raising=False)

    def run() -> dict[tuple[str, str], float]:
        given = ["--data", str(data), "--model", str(model), "--runs", str(tmp_path), "--json", str(tmp_path / "result.json")]
        context_store.main([*given, "--contexts", "--sets", "--server", "32", "64", "--piece", "16", "--rounds", "2"])
        return {(row.case, row.metric): row.value for row in read_record(tmp_path / "result.json").rows}

    first = run()
    assert started == [(str(model), CORES, ["dtype", "kv-transfer-config", "max_model_len"]), "ended"]
    assert THREADS not in os.environ
    for case in ("vllm/0.03125k", "vllm/0.0625k"):
        assert 0 < first[case, "ttft_ratio_min"] <= first[case, "ttft_ratio"] <= first[case, "ttft_ratio_max"]
        assert (case, "ttft_s") in first
        assert (case, "ttft_disk_s") not in first
    assert first["vllm/0.0625k", "context_tokens"] > first["vllm/0.03125k", "context_tokens"] > 24
    assert run() == first
    assert len(started) == 2
