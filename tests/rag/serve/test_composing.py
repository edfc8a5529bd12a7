"""A new adapter of those that are there, by a few examples, as a job of the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from adapters.registry import Registry
from rag.serve.app import create_app
from tests.adapters.lorahub.parts import noisy
from tests.rag.cli.test_compose import TASK, save_base
from tests.rag.serve.parts import pipeline

EXAMPLES = [{"prompt": prompt, "answer": answer} for prompt, answer in TASK]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry")
    base = save_base(tmp_path / "base")
    for seed in (1, 2):
        add(made, f"noise{seed}", tmp_path, base, seed)
    return made


def add(registry: Registry, name: str, folder: Path, base: Path, seed: int = 1, on: str = "llama") -> None:
    adapted = noisy(on, seed, targets="all")
    adapted.base.config._name_or_path = str(base)
    adapted.save(folder / name)
    registry.add(folder / name, name)


def sent(registry: Registry, *bodies: dict[str, Any], patience: float = 120.0) -> list[httpx.Response]:
    """The answers to each body, and the job of the last one when it has ended."""

    async def scenario() -> list[httpx.Response]:
        app = create_app(pipeline(), adapters=registry)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            replies = [await client.post("/v1/adapters/compose", json=body) for body in bodies]
            if replies[-1].status_code == 202:
                async with asyncio.timeout(patience):
                    while True:
                        job = await client.get(replies[-1].headers["location"])
                        if job.json()["finished"] is not None:
                            return [*replies, job]
                        await asyncio.sleep(0.2)
            return replies

    return asyncio.run(scenario())


def test_what_was_found_is_an_adapter_of_the_server(registry: Registry) -> None:
    reply, job = sent(registry, {"name": "mixed", "examples": EXAMPLES, "evaluations": 5})
    assert (reply.status_code, reply.json()["kind"], reply.json()["status"]) == (202, "compose", "queued")
    done = job.json()
    assert (done["status"], done["error"]) == ("done", None)
    assert done["result"]["adapter"] == "mixed"
    assert done["result"]["best"] <= done["result"]["start"]
    assert {weight["name"] for weight in done["result"]["weights"]} == {"noise1", "noise2"}
    assert [entry.name for entry in registry.entries()] == ["mixed", "noise1", "noise2"]


def test_a_search_that_fails_says_why_and_adds_nothing(registry: Registry, tmp_path: Path) -> None:
    other = Registry(tmp_path / "other")
    add(other, "noise", tmp_path, tmp_path / "nowhere")
    job = sent(other, {"name": "mixed", "examples": EXAMPLES, "evaluations": 2})[-1].json()
    assert (job["status"], job["result"]) == ("failed", None)
    assert "nowhere" in job["error"]["message"]
    assert [entry.name for entry in other.entries()] == ["noise"]


@pytest.mark.parametrize(
    ("changes", "status", "named"),
    [
        ({"name": "noise1"}, 409, "noise1"),
        ({"name": "../x"}, 400, "name"),
        ({"name": ""}, 400, "name"),
        ({"adapters": ["nosuch"]}, 400, "'nosuch'; there are: noise1, noise2"),
        ({"adapters": []}, 400, "adapters"),
        ({"examples": []}, 400, "examples"),
        ({"examples": [{"prompt": "a", "answer": ""}]}, 400, "examples.0.answer"),
        ({"examples": EXAMPLES * 50}, 400, "examples"),
        ({"evaluations": 1}, 400, "evaluations"),
        ({"evaluations": 1e308}, 400, "evaluations"),
        ({"count": "3"}, 400, "count"),
        ({"choose": "best"}, 400, "choose"),
        ({"out": "/etc"}, 400, "out"),
    ],
)
def test_bad_requests_are_refused_by_name(registry: Registry, changes: dict[str, Any], status: int, named: str) -> None:
    (reply,) = sent(registry, {"name": "mixed", "examples": EXAMPLES, **changes})
    assert reply.status_code == status
    assert named in reply.json()["error"]["message"]
    assert len(registry.entries()) == 2


def test_adapters_of_different_bases_are_not_composed(registry: Registry, tmp_path: Path) -> None:
    add(registry, "stranger", tmp_path, tmp_path / "other", on="gpt2")
    (reply,) = sent(registry, {"name": "mixed", "examples": EXAMPLES})
    assert (reply.status_code, "made for different models" in reply.json()["error"]["message"]) == (400, True)
