"""Adapters of a registry as models of a server, against a scripted vLLM; tests/vllm has the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from adapters.registry import Registry
from generators.direct import Direct
from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.serve.adapters import Slots
from rag.serve.app import create_app
from tests.adapters.lorahub.parts import saved
from tests.generators.models import lora_server
from tests.generators.models.lora_server import LoraServer
from tests.rag.serve.parts import pipeline

Work = Callable[[httpx.AsyncClient], Awaitable[Any]]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry")
    for name in ("chemistry", "law"):
        made.add(saved(tmp_path / name, r=4), name)
    return made


@pytest.fixture
def server() -> LoraServer:
    return LoraServer()


def during(pipelines: Pipeline | dict[str, Pipeline], registry: Registry | None, work: Work, **options: Any) -> Any:
    async def scenario() -> Any:
        app = create_app(pipelines, adapters=registry, **options)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await work(client)

    return asyncio.run(scenario())


def on(server: LoraServer) -> Pipeline:
    return Pipeline().add("answer", Direct(lora_server.model(server), max_tokens=16))


async def ask(client: httpx.AsyncClient, model: str) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "hello"}]})


async def texts(client: httpx.AsyncClient, *models: str) -> list[str]:
    return [(await ask(client, model)).json()["choices"][0]["message"]["content"] for model in models]


def test_each_pipeline_with_each_adapter_is_a_model(server: LoraServer, registry: Registry) -> None:
    async def work(client: httpx.AsyncClient) -> tuple[list[str], list[str]]:
        known = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        return known, await texts(client, "graft", "graft:chemistry", "graft:law", "graft:chemistry", "graft")

    known, answers = during(on(server), registry, work)
    assert known == ["graft", "graft:chemistry", "graft:law"]
    assert answers == ["base", "chemistry", "law", "chemistry", "base"]
    assert (server.loads, server.unloads) == (["chemistry", "law", "chemistry"], ["chemistry", "law"])  # one slot


def test_pipelines_on_one_server_share_its_slots(server: LoraServer, registry: Registry) -> None:
    async def work(client: httpx.AsyncClient) -> list[str]:
        return await texts(client, "a:chemistry", "b:chemistry", "b:law", "a:law", "a:chemistry")

    assert during({"a": on(server), "b": on(server)}, registry, work, slots=Slots(2)) == [
        "chemistry",
        "chemistry",
        "law",
        "law",
        "chemistry",
    ]
    assert (server.loads, server.unloads) == (["chemistry", "law"], [])


def test_an_adapter_that_comes_later_is_served_without_a_restart(server: LoraServer, registry: Registry, tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> tuple[int, list[str], int]:
        before = (await ask(client, "graft:poems")).status_code
        registry.add(saved(tmp_path / "poems", r=2), "poems")
        answers = await texts(client, "graft:poems")
        registry.remove("poems")
        return before, answers, (await ask(client, "graft:poems")).status_code

    assert during(on(server), registry, work) == (404, ["poems"], 404)


@pytest.mark.parametrize(
    "model", ["graft:", "graft:nosuch", "graft:../law", "graft:law:law", "nosuch:law", ":law", "graft: law", "graft:LAW"]
)
def test_unknown_names_are_refused_with_what_there_is(model: str, server: LoraServer, registry: Registry) -> None:
    reply = during(on(server), registry, lambda client: ask(client, model))
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "law" in reply.json()["error"]["message"]
    assert server.loads == []


def test_without_a_registry_there_are_no_adapters(server: LoraServer) -> None:
    async def work(client: httpx.AsyncClient) -> list[int]:
        return [(await ask(client, "graft:law")).status_code, (await client.get("/v1/adapters")).status_code]

    assert during(on(server), None, work) == [404, 404]


def test_a_model_that_wears_nothing_offers_nothing(registry: Registry) -> None:
    async def work(client: httpx.AsyncClient) -> tuple[list[str], int, Any]:
        known = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        listed = (await client.get("/v1/adapters")).json()["data"]
        return known, (await ask(client, "graft:law")).status_code, [(one["models"], one["loaded"]) for one in listed]

    assert during(pipeline(), registry, work) == (["graft"], 404, [([], None), ([], None)])


def test_loading_and_unloading_at_run_time(server: LoraServer, registry: Registry) -> None:
    async def work(client: httpx.AsyncClient) -> list[Any]:
        async def loaded() -> dict[str, bool]:
            return {one["id"]: one["loaded"] for one in (await client.get("/v1/adapters")).json()["data"]}

        seen = [await loaded()]
        reply = await client.post("/v1/adapters/law/load")
        assert (reply.status_code, reply.json()["loaded"], reply.json()["models"]) == (200, True, ["graft:law"])
        seen.append(await loaded())
        assert (await client.post("/v1/adapters/law/unload")).json()["loaded"] is False
        assert (await client.post("/v1/adapters/law/unload")).status_code == 200
        return [*seen, await loaded()]

    bare = {"chemistry": False, "law": False}
    assert during(on(server), registry, work) == [bare, {**bare, "law": True}, bare]
    assert (server.loads, server.unloads) == (["law"], ["law"])


def test_what_is_in_use_stays(registry: Registry) -> None:
    server = LoraServer(pause=0.3)

    async def work(client: httpx.AsyncClient) -> tuple[httpx.Response, list[str]]:
        asked = asyncio.create_task(texts(client, "graft:law"))
        while not server.in_flight["law"]:
            await asyncio.sleep(0.01)
        return await client.post("/v1/adapters/law/unload"), await asked

    reply, answers = during(on(server), registry, work)
    assert (reply.status_code, reply.json()["error"]["code"], reply.headers["retry-after"]) == (409, "adapter_in_use", "1")
    assert (answers, server.robbed) == (["law"], [])


def test_what_the_server_would_refuse_is_refused_with_the_reason_and_without_a_path(server: LoraServer, registry: Registry) -> None:
    reply = during(on(server), registry, lambda client: client.post("/v1/adapters/law/load"), slots=Slots(1, 1))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "adapter_refused")
    assert "rank 4 is above the server's 1" in reply.json()["error"]["message"]
    assert str(registry.folder) not in reply.text
    assert server.loads == []


def test_a_damaged_adapter_is_listed_with_its_problem_and_not_offered(server: LoraServer, registry: Registry) -> None:
    (registry.folder / "law" / "graft.json").write_text("{")

    async def work(client: httpx.AsyncClient) -> tuple[Any, list[str]]:
        listed = (await client.get("/v1/adapters")).json()["data"]
        return {one["id"]: one["problem"] is None for one in listed}, [m["id"] for m in (await client.get("/v1/models")).json()["data"]]

    assert during(on(server), registry, work) == ({"chemistry": True, "law": False}, ["graft", "graft:chemistry"])


def test_an_unknown_adapter_cannot_be_loaded(server: LoraServer, registry: Registry) -> None:
    for path in ("nosuch/load", "nosuch/unload", "..%2flaw/load"):
        reply = during(on(server), registry, lambda client, path=path: client.post(f"/v1/adapters/{path}"))
        assert reply.status_code == 404


def test_one_model_by_its_name(server: LoraServer, registry: Registry) -> None:
    async def work(client: httpx.AsyncClient) -> list[int]:
        return [(await client.get(f"/v1/models/{name}")).status_code for name in ("graft", "graft:law", "graft:nosuch", "nosuch")]

    assert during(on(server), registry, work) == [200, 200, 404, 404]


@pytest.mark.parametrize("name", ["", "a:b", ":"])
def test_a_pipeline_has_a_name_without_the_separator(name: str) -> None:
    with pytest.raises(InputError, match="without ':'"):
        create_app({name: pipeline()})
