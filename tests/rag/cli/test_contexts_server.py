"""``rag contexts`` and ``rag serve`` for a vLLM server that is to answer from a store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.models.http import HttpClient
from generators.models.stitched.encoder import LocalEncoder
from generators.models.vllm_contexts.certificate import certificates
from generators.models.vllm_contexts.shelves import FIXED
from retrievers.context.store import ContextStore
from tests.generators.models.conftest import tiny_folder  # noqa: F401
from tests.generators.models.vllm_contexts.engine import Engine
from tests.rag.cli.conftest import Rag
from tests.rag.cli.test_serve import served  # noqa: F401


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:  # noqa: F811
    """The tiny model with a window for a prompt of several passages."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    return folder


@pytest.fixture
def store(rag: Rag, shelf: Path, base: Path, tmp_path: Path) -> Path:
    """A store of the shelf, with what stands around its passages."""
    result = rag("contexts", "build", shelf, "--store", tmp_path / "contexts", "--model", base, "--format", "float32")
    assert result.exit_code == 0, result.output
    return tmp_path / "contexts"


def test_build_keeps_what_stands_around_passages_and_verify_reads_it(rag: Rag, shelf: Path, store: Path, base: Path) -> None:
    assert (len(ContextStore(store)), len(ContextStore(store / FIXED))) == (2, 2)
    assert rag("contexts", "verify", store).exit_code == 0
    file = next((store / FIXED).rglob("contexts.safetensors"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    result = rag("contexts", "verify", store)
    assert result.exit_code == 1
    assert "damaged: segment" in result.stdout
    assert rag("contexts", "build", shelf, "--store", store, "--model", base).exit_code == 0
    assert rag("contexts", "verify", store).exit_code == 0


def test_check_certifies_a_server_or_says_why_not(rag: Rag, store: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(LocalEncoder(str(base), device="cpu").decoder, str(base))
    made = HttpClient.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.transport = httpx.MockTransport(engine)

    monkeypatch.setattr(HttpClient, "__init__", init)
    asked = ("contexts", "check", store, "--url", "http://models.example:8000/v1", "--model", base, "--orders", "2")
    engine.fault = "unmasked"
    result = rag(*asked)
    assert (result.exit_code, certificates(store)) == (1, [])
    assert "do not use this store with this server" in result.stderr
    engine.fault = ""
    result = rag(*asked)
    assert result.exit_code == 0, result.output
    assert "vLLM 0.32.0 in float32 answers from it as the block mask does: 2 prompts" in result.stdout
    assert result.stderr.count("text equal") == 2
    found = json.loads(rag(*asked, "--json").stdout)
    assert [found] == [json.loads(json.dumps({name: getattr(one, name) for name in found})) for one in certificates(store)]
    engine.contexts = False
    result = rag(*asked)
    assert (result.exit_code, "loads no contexts" in result.stderr) == (2, True)


def test_a_started_server_has_the_store_and_answers_from_it(
    rag: Rag,
    shelf: Path,
    store: Path,
    served: dict[str, Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from generators.models.vllm import VLLM
    from generators.stitched import Stitched
    from rag.serve.inspection import models_of

    made: list[dict[str, Any]] = []
    pipes: list[Any] = []

    class Supervised:
        url, state, restarts = "http://127.0.0.1:7/v1", "starting", 0

        def __init__(self, model: str, **options: Any) -> None:
            made.append(options["options"])

    from rag.serve import app

    real = app.create_app
    monkeypatch.setattr(app, "create_app", lambda pipe, **options: (pipes.append(pipe), real(pipe, **options))[1])
    monkeypatch.setattr("generators.models.supervisor.Supervisor", Supervised)
    result = rag("serve", "--corpus", shelf, "--engine", "vllm", "--start", "--contexts", store)
    assert result.exit_code == 0, result.output
    assert f"until `rag contexts check {store} --url http://127.0.0.1:7/v1` has" in result.stderr
    transfer = json.loads(made[0]["kv-transfer-config"])
    assert transfer["kv_connector_extra_config"]["stores"] == [{"path": str(store), "tenant": None}]
    (model,) = models_of(pipes[0])
    assert isinstance(model, VLLM)
    assert (model.url, model.contexts) == ("http://127.0.0.1:7/v1", True)
    assert any(isinstance(node.component, Stitched) and node.component.store == str(store) for node in pipes[0].nodes.values())


@pytest.mark.parametrize("options", [("--contexts", "store"), ("--engine", "vllm", "--start", "--contexts", "nowhere")])
def test_a_store_that_no_server_gets_is_refused(
    rag: Rag,
    shelf: Path,
    served: dict[str, Any],  # noqa: F811
    options: tuple[str, ...],
) -> None:
    result = rag("serve", "--corpus", shelf, *options)
    assert (result.exit_code != 0, served) == (True, {})
    assert "--start" in result.stderr or "there is no store of contexts here" in result.stderr
