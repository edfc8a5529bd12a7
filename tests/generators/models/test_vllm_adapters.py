"""Adapters by name on a scripted vLLM server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from generators.models.vllm import VLLM
from rag.core.errors import ModelError, ModelRefused
from tests.generators.models.lora_server import LoraServer, model


@pytest.fixture
def server() -> LoraServer:
    return LoraServer()


def test_an_adapter_is_named_in_requests(server: LoraServer) -> None:
    server.loaded["legal"] = "/adapters/legal"
    bare = model(server)
    dressed = bare.with_adapter("legal")
    assert (dressed.name, bare.adapter) == ("legal", None)
    assert (dressed.generate("hello").model, dressed.generate("hello").text) == ("legal", "legal")
    assert {body["model"] for path, body in server.bodies if path != "/v1/models"} == {"legal"}
    assert dressed.with_adapter(None).generate("hello").model == "base"
    assert (dressed.window, model(server, adapter="legal").window) == (64, 64)


def test_adapters_are_loaded_listed_and_unloaded(server: LoraServer) -> None:
    bare = model(server)
    assert bare.served() == {}
    assert bare.load_adapter("legal", "/adapters/legal").name == "legal"
    assert server.bodies[-1] == ("/v1/load_lora_adapter", {"lora_name": "legal", "lora_path": "/adapters/legal"})
    assert bare.served() == {"legal": "/adapters/legal"}
    bare.unload_adapter("legal")
    assert bare.served() == {}
    with pytest.raises(ModelRefused, match=r"No adapter found for /nowhere$"):
        bare.load_adapter("legal", "/nowhere")


def test_a_server_that_loads_nothing_while_it_runs() -> None:
    bare = model(LoraServer(runtime=False))
    with pytest.raises(ModelRefused, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        bare.load_adapter("legal", "/adapters/legal")
    with pytest.raises(ModelRefused, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        bare.unload_adapter("legal")


@pytest.mark.parametrize(
    "ask",
    [
        lambda worn: worn.generate("hello"),
        lambda worn: list(worn.stream("hello")),
        lambda worn: worn.score("hello", "xx"),
        lambda worn: worn.count("hello"),
        lambda worn: asyncio.run(worn.aencode("hello")),
    ],
)
def test_an_adapter_that_is_not_loaded_is_never_the_base_model(server: LoraServer, ask: Callable[[VLLM], Any]) -> None:
    with pytest.raises(ModelRefused, match="no adapter 'legal' loaded; loaded are: none; `rag adapters load legal --url http://models"):
        ask(model(server, adapter="legal"))
    server.loaded |= {"tax": "/adapters/tax", "trade": "/adapters/trade"}
    with pytest.raises(ModelRefused, match="loaded are: tax, trade;"):
        ask(model(server, adapter="legal"))
    assert not [path for path, _ in server.bodies if path == "/v1/completions"]


@pytest.mark.parametrize(
    "ask", [lambda worn: worn.generate("hello"), lambda worn: list(worn.stream("hello")), lambda worn: worn.score("a", "xx")]
)
def test_a_server_that_does_not_check_names_is_found_out(ask: Callable[[VLLM], Any]) -> None:
    lax = LoraServer(strict=False)
    with pytest.raises(ModelRefused, match=r"answered as 'base', not with the adapter 'legal'.*VLLM_SKIP_MODEL_NAME_VALIDATION"):
        ask(model(lax, adapter="legal"))
    lax.loaded["legal"] = "/adapters/legal"
    ask(model(lax, adapter="legal"))


def test_an_adapter_that_is_unloaded_between_two_requests(server: LoraServer) -> None:
    worn = model(server).load_adapter("legal", "/adapters/legal")
    assert worn.generate("hello").text == "legal"
    server.restart()
    with pytest.raises(ModelRefused, match="no adapter 'legal' loaded"):
        worn.generate("hello")  # its tokens are remembered, so only the completion can tell
    assert server.bodies[-2][0] == "/v1/completions"


def test_a_model_name_that_is_not_served_is_told_as_the_server_tells_it(server: LoraServer) -> None:
    with pytest.raises(ModelRefused, match="`mine` does not exist"):
        model(server, model="mine").generate("hello")


def test_a_list_of_another_shape() -> None:
    import httpx

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"hello": 1})

    with pytest.raises(ModelError, match="OpenAICompatible"):
        model(answer).served()
