"""Prompts that are tokenised here instead of by the server."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from generators.models.tokens import PromptTokenizer, load_tokenizer
from generators.models.vllm import VLLM
from rag.core.errors import InputError, MissingCapability, ModelError
from rag.core.types import Message, Sampling

CHAT = [Message("system", "Be brief."), Message("user", "the cat sat")]


@pytest.fixture
def server(script: Any, plain: SimpleNamespace) -> Any:
    """A server of the tiny model; ``script.shift`` is added to each id that it makes."""
    script.shift = 0

    def tokenize(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "prompt" in body:
            ids = plain.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
        else:
            ids = plain.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
        return httpx.Response(200, json={"max_model_len": 128, "tokens": [token + script.shift for token in ids]})

    def complete(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        top = [{"token_id:40": -0.5}]
        logprobs = {"tokens": ["token_id:40"], "token_logprobs": [-0.5], "top_logprobs": top, "text_offset": [0]}
        text = plain.tokenizer.decode([40])
        choice = {"text": text, "token_ids": [40], "finish_reason": "length", "stop_reason": None}
        return httpx.Response(200, json={"choices": [{**choice, "logprobs": logprobs if body.get("logprobs") is not None else None}]})

    cards = [{"id": "tiny", "max_model_len": 128}, {"id": "skill", "parent": "tiny", "max_model_len": 128}]
    script.routes = {
        "/v1/models": lambda request: httpx.Response(200, json={"data": cards}),
        "/tokenize": tokenize,
        "/v1/completions": complete,
    }
    return script


def model(server: Any, tokenizer: Path | None) -> VLLM:
    made = VLLM("http://models.example:8000/v1", retries=0, tokenizer=None if tokenizer is None else str(tokenizer))
    made._http.transport = server.transport
    return made


def asked(server: Any, path: str) -> list[dict[str, Any]]:
    return [json.loads(request.content) for request in server.requests if request.url.path == path]


def test_the_same_ids_are_sent_and_the_server_is_asked_once_for_each_kind(server: Any, tiny_folder: Path) -> None:
    prompts = ["the cat", "a stop string", CHAT, [*CHAT, Message("assistant", "the mat")], [Message("user", "北京")], "z"]
    here, there = model(server, tiny_folder), model(server, None)
    for prompt in prompts:
        assert here.generate(prompt) == there.generate(prompt)
        assert here.count(prompt) == there.count(prompt)
    sent = asked(server, "/v1/completions")
    assert sent[::2] == sent[1::2]
    assert here.window == 128
    mine = model(server, tiny_folder)
    server.requests.clear()
    for prompt in prompts:
        mine.generate(prompt)
    kinds = [("prompt" in body, body.get("add_special_tokens")) for body in asked(server, "/tokenize")]
    assert kinds == [(True, True), (False, None), (True, False)], "a text, a chat, and an answer that was begun"


def test_an_adapter_may_bring_a_tokenizer_of_its_own(server: Any, tiny_folder: Path) -> None:
    here = model(server, tiny_folder)
    here.generate("the cat")
    server.shift = 1
    with pytest.raises(ModelError, match="is not that of the served model 'skill'"):
        here.with_adapter("skill").generate("the cat")
    assert here.generate("the dog").prompt_tokens


def test_another_tokenizer_is_refused_again_and_again(server: Any, tiny_folder: Path) -> None:
    server.shift = 1
    here = model(server, tiny_folder)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"of one prompt it makes \d+ tokens and the server \d+, and they differ from token 0 on"):
            here.generate("the cat")
    assert not asked(server, "/v1/completions")


def test_what_tokens_spell_is_not_asked(server: Any, tiny_folder: Path, plain: SimpleNamespace) -> None:
    got = model(server, tiny_folder).generate("the cat", Sampling(max_tokens=1, logprobs=0))
    assert [token.text for token in got.tokens] == [plain.tokenizer.decode([40])]
    assert not asked(server, "/detokenize")


def test_a_tokenizer_that_is_not_there_is_named(server: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=f"cannot load the tokenizer '{tmp_path}'"):
        model(server, tmp_path).generate("the cat")


def test_prompts_without_tokens_or_template(tiny_folder: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_folder))
    tokenizer.chat_template = None
    tokens = PromptTokenizer(tokenizer, "tiny")
    with pytest.raises(MissingCapability, match="tiny has no chat template"):
        tokens.ids(CHAT)
    with pytest.raises(InputError, match="tiny makes no token of ''"):
        tokens.ids("")
