"""A vLLM server with LoRA as a script: it knows which adapters are loaded, answers unknown names as vLLM 0.32 does, and counts."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from generators.models.http import HttpClient
from generators.models.vllm import VLLM

ROOT = "/models/base"


class LoraServer:
    """Writes the name of the adapter that a request names. ``pause`` is the seconds that a completion takes.

    Without ``runtime`` it loads nothing while it runs; without ``strict`` it answers for unknown names as the base model.
    """

    def __init__(self, pause: float = 0.0, runtime: bool = True, strict: bool = True) -> None:
        self.pause = pause
        self.runtime = runtime
        self.strict = strict
        self.loaded: dict[str, str] = {}
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.most = 0
        """The largest number of adapters that were loaded at once."""
        self.in_flight: Counter[str] = Counter()
        self.robbed: list[str] = []
        """Adapters that were unloaded under a request in flight."""
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        """What came, by path."""

    def restart(self) -> None:
        """Forget the adapters."""
        self.loaded.clear()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        body = json.loads(request.content) if request.content else {}
        self.bodies.append((path, body))
        if path == "/v1/models":
            return httpx.Response(200, json={"data": self._cards()})
        if path.endswith("load_lora_adapter") and not self.runtime:
            return httpx.Response(404, json={"detail": "Not Found"})
        if path == "/v1/load_lora_adapter":
            return await self._load(body)
        if path == "/v1/unload_lora_adapter":
            return self._unload(body)
        return await self._asked(path, body)

    def _cards(self) -> list[dict[str, Any]]:
        worn = [{"id": name, "root": folder, "parent": "base", "max_model_len": None} for name, folder in self.loaded.items()]
        return [{"id": "base", "root": ROOT, "parent": None, "max_model_len": 64}, *worn]

    async def _load(self, body: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(self.pause / 4)
        name = body["lora_name"]
        if name in self.loaded:
            return _refusal(400, f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, …")
        if body["lora_path"] == "/nowhere":
            return _refusal(404, "No adapter found for /nowhere")
        self.loaded[name] = body["lora_path"]
        self.loads.append(name)
        self.most = max(self.most, len(self.loaded))
        return httpx.Response(200, text=f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, body: dict[str, Any]) -> httpx.Response:
        name = body["lora_name"]
        if name not in self.loaded:
            return _refusal(404, f"The lora adapter '{name}' cannot be found.")
        if self.in_flight[name]:
            self.robbed.append(name)
        del self.loaded[name]
        self.unloads.append(name)
        return httpx.Response(200, text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _asked(self, path: str, body: dict[str, Any]) -> httpx.Response:
        name = body["model"]
        if name != "base" and name not in self.loaded:
            if self.strict:
                return _refusal(404, f"The model `{name}` does not exist. Valid aliases: base.")
            name = "base"
        if path == "/tokenize":
            return httpx.Response(200, json={"count": 2, "max_model_len": 64, "tokens": [5, 6]})
        if path == "/detokenize":
            return httpx.Response(200, json={"prompt": "Hi"})
        self.in_flight[name] += 1
        try:
            await asyncio.sleep(self.pause)
        finally:
            self.in_flight[name] -= 1
        choice: dict[str, Any] = {"index": 0, "text": name, "logprobs": None, "finish_reason": "stop", "token_ids": [10]}
        if body.get("logprobs") is not None:
            top = {"token_id:10": -0.1, "token_id:11": -2.5}
            choice["logprobs"] = {"tokens": ["token_id:10"], "token_logprobs": [-0.1], "top_logprobs": [top], "text_offset": [0]}
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = [None, *({str(id): {"logprob": -1.0, "decoded_token": "x"}} for id in body["prompt"][1:])]
        answer = {"object": "text_completion", "model": name, "choices": [choice]}
        if body.get("stream"):
            return httpx.Response(200, content=f"data: {json.dumps(answer)}\n\ndata: [DONE]\n\n".encode())
        return httpx.Response(200, json=answer)


def model(server: Any, **changes: Any) -> VLLM:
    """The model on ``server``."""
    made = VLLM("http://models.example:8000/v1", retries=1, **changes)
    made._http.transport = httpx.MockTransport(server)
    made._http.pause = 0.0
    return made


def on_network(server: LoraServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every model find ``server`` at its address."""
    made = HttpClient.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.transport = httpx.MockTransport(server)

    monkeypatch.setattr(HttpClient, "__init__", init)


def _refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "type": "NotFoundError", "param": None, "code": status}})
