from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

from rag.core.errors import ModelError
from rag.serve.embedding_types import MAX_TEXTS, EmbeddingRequest, answer, embed
from rag.serve.errors import RequestError
from retrievers.encoders import SentenceEncoder
from tests.rag.serve.parts import Gathering, Letters


def asked(**fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest.model_validate({"model": "letters", "input": ["abc", "xyz"], **fields})


def test_vectors_stand_in_the_order_of_the_texts_as_the_encoder_gave_them() -> None:
    encoder = Letters()
    body = asyncio.run(answer(encoder, asked()))
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert [one["embedding"] for one in body["data"]] == Letters().encode(["abc", "xyz"]).tolist()
    assert encoder.seen == [("passage", "abc"), ("passage", "xyz")]


def test_base64_is_little_endian_float32() -> None:
    body = asyncio.run(answer(Letters(), asked(encoding_format="base64", input="abc")))
    data = base64.b64decode(body["data"][0]["embedding"], validate=True)
    assert np.array_equal(np.frombuffer(data, "<f4"), Letters().encode(["abc"])[0])


def test_a_query_is_encoded_as_one_and_a_text_is_not_changed() -> None:
    encoder = Letters()
    asyncio.run(answer(encoder, asked(input=" a b ", input_type="query")))
    assert encoder.seen == [("query", " a b ")]


def test_usage_is_counted_only_where_the_encoder_tells() -> None:
    class Counting(Letters):
        def count_tokens(self, texts: list[str], kind: str = "passage") -> list[int]:
            return [len(text) for text in texts]

    silent = asyncio.run(answer(Letters(), asked()))
    assert silent["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert "does not tell" in silent["graft"]["notes"][0]
    counted = asyncio.run(answer(Counting(), asked()))
    assert counted["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert "graft" not in counted
    assert "not followed: user" in asyncio.run(answer(Counting(), asked(user="ann")))["graft"]["notes"][0]


def test_only_the_encoders_own_length_is_given() -> None:
    encoder = Letters()
    assert len(asyncio.run(answer(encoder, asked(dimensions=26)))["data"][0]["embedding"]) == 26
    encoder.seen.clear()
    with pytest.raises(RequestError, match="gives 26, not 13"):
        asyncio.run(answer(encoder, asked(dimensions=13)))
    assert encoder.seen == []


def test_a_vector_that_is_not_finite_is_an_error() -> None:
    class Broken(Letters):
        def encode(self, texts: list[str], kind: Any = "passage") -> np.ndarray:
            return np.full((len(texts), 26), np.nan, np.float32)

    for form in ("float", "base64"):
        with pytest.raises(ModelError, match="not finite"):
            asyncio.run(answer(Broken(), asked(encoding_format=form)))


def test_the_encoder_works_in_a_thread_and_the_loop_goes_on() -> None:
    encoder = Gathering()

    async def scenario() -> None:
        work = asyncio.create_task(embed(encoder, ["abc"], "passage"))
        while not encoder.begun.is_set():
            await asyncio.sleep(0.005)  # it would never come back if the work were done here
        encoder.gate.set()
        assert (await work).shape == (1, 26)

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_cancelled_caller_does_not_break_those_that_wait_beside_it() -> None:
    encoder = Gathering()

    async def scenario() -> Any:
        first = asyncio.create_task(embed(encoder, ["first"], "passage"))
        while not encoder.begun.is_set():
            await asyncio.sleep(0.005)
        leaves = asyncio.create_task(embed(encoder, [f"leaves {n}" for n in range(MAX_TEXTS)], "passage"))
        stays = asyncio.create_task(embed(encoder, ["stays", "too"], "passage"))
        await asyncio.sleep(0.02)
        first.cancel()  # its batch has begun
        leaves.cancel()  # its batch has not
        gone = await asyncio.gather(first, leaves, return_exceptions=True)
        encoder.gate.set()
        return [*gone, await stays]

    first, leaves, stays = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(leaves, asyncio.CancelledError)
    assert np.array_equal(stays, Letters().encode(["stays", "too"]))
    assert not any("leaves" in text for _, text in encoder.letters.seen)


def test_a_real_encoder_gives_the_same_vectors_as_alone() -> None:
    encoder = SentenceEncoder("minilm", device="cpu")
    texts = ["A suit may be worn outside for 90 minutes.", "服装", "The kitchen opens at seven."]
    body = asyncio.run(answer(encoder, asked(input=texts, dimensions=384)))
    found = np.array([one["embedding"] for one in body["data"]])
    assert np.allclose(found, [encoder.encode([text])[0] for text in texts], atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
