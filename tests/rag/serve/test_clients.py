"""Clients that people have, as they are, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

openai = pytest.importorskip("openai")

from rag.serve.app import create_app  # noqa: E402
from rag.serve.settings import Doors  # noqa: E402
from tests.rag.serve.parts import PASSAGE, TEXT, listening, pipeline  # noqa: E402

SECRET = "a-secret-of-the-environment"
QUESTION = "How long may a suit be worn outside?"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with listening(create_app(pipeline(), doors=Doors(secret=SECRET, bind="127.0.0.1"))) as url:
        yield f"{url}/v1"


def test_openais_client_chats_streams_and_lists(address: str) -> None:
    client = openai.OpenAI(base_url=address, api_key=SECRET, max_retries=0)
    asked = {"model": "graft", "messages": [{"role": "user", "content": QUESTION}]}
    reply = client.chat.completions.create(**asked)
    assert reply.choices[0].message.content == TEXT
    assert reply.choices[0].message.model_extra["graft"]["sources"][0]["id"] == PASSAGE.id
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (40, 12)
    pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)]
    assert len(pieces) > 3
    assert "".join(pieces) == TEXT
    assert [model.id for model in client.models.list()] == ["graft"]
    assert client.models.retrieve("graft").owned_by == "graft"


def test_openais_client_understands_what_is_refused(address: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=address, api_key="wrong", max_retries=0).models.list()
    client = openai.OpenAI(base_url=address, api_key=SECRET, max_retries=0)
    with pytest.raises(openai.NotFoundError, match="nosuch"):
        client.chat.completions.create(model="nosuch", messages=[{"role": "user", "content": QUESTION}])
    with pytest.raises(openai.BadRequestError, match="tools"):
        client.chat.completions.create(
            model="graft",
            messages=[{"role": "user", "content": QUESTION}],
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )


def test_langchains_chat_model_asks_and_streams(address: str) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    model = langchain_openai.ChatOpenAI(base_url=address, api_key=SECRET, model="graft", max_retries=0)
    assert model.invoke(QUESTION).content == TEXT
    pieces = [chunk.content for chunk in model.stream(QUESTION)]
    assert len(pieces) > 3
    assert "".join(pieces) == TEXT
