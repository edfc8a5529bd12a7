from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import ModelError
from rag.serve.rerank_types import CosineRanker, CrossEncoderRanker, RerankRequestV1, RerankRequestV2, answer, rankers_of
from retrievers.rerank import Rerank
from tests.rag.serve.parts import Gathering, Letters
from tests.retrievers.test_rerank import TEXTS, save_cross_encoder

QUERY = "how long may a suit be worn"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


class Lengths:
    """Scores a document by its length."""

    async def score(self, query: str, documents: list[str]) -> Sequence[float]:
        return [float(len(text)) for text in documents]


def test_a_cross_encoder_scores_every_document_and_not_only_its_best(folder: str) -> None:
    from sentence_transformers import CrossEncoder

    rerank = Rerank(folder, k=2, max_pairs=3, batch_size=4, device="cpu")
    scores = asyncio.run(CrossEncoderRanker(rerank).score(QUERY, TEXTS))
    expected = CrossEncoder(folder, device="cpu").predict([(QUERY, text) for text in TEXTS])
    assert list(scores) == pytest.approx([float(score) for score in expected], abs=1e-5)
    assert (rerank.k, rerank.max_pairs) == (2, 3)
    assert len(asyncio.run(CrossEncoderRanker(rerank).score(QUERY, [""]))) == 1


def test_an_encoder_scores_by_the_cosine_of_query_and_document() -> None:
    letters = Letters()
    scores = asyncio.run(CosineRanker(letters).score("abc", ["xyz", "abc", "ab"]))
    query, documents = Letters().encode(["abc"], "query")[0], Letters().encode(["xyz", "abc", "ab"])
    assert list(scores) == pytest.approx((documents @ query).tolist())
    assert scores[1] > scores[2] > scores[0]
    assert letters.seen == [("query", "abc"), ("passage", "xyz"), ("passage", "abc"), ("passage", "ab")]
    gathering = Gathering()
    gathering.gate.set()
    assert asyncio.run(CosineRanker(gathering).score("abc", ["xyz", "abc", "ab"])) == pytest.approx(scores)


def test_the_names_say_what_scores_and_no_folder(folder: str) -> None:
    rankers = rankers_of([Rerank(folder), Rerank("cross-encoder/tiny")], {"letters": Letters()})
    assert list(rankers) == [Path(folder).name, "cross-encoder/tiny", "cosine:letters"]
    assert isinstance(rankers["cosine:letters"], CosineRanker)


def test_best_first_and_equal_ones_in_their_order() -> None:
    asked = RerankRequestV1.model_validate({"query": "q", "documents": ["bb", "ccc", {"text": "aa"}, ""], "top_n": 3})
    body = asyncio.run(answer("lengths", Lengths(), asked))
    assert [(one["index"], one["relevance_score"], one["document"]) for one in body["results"]] == [
        (1, 3.0, {"text": "ccc"}),
        (0, 2.0, {"text": "bb"}),
        (2, 2.0, {"text": "aa"}),
    ]
    assert body["model"] == "lengths"
    assert body["meta"] == {"api_version": {"version": "1"}}
    assert body["usage"] == {"total_tokens": 0}
    assert "does not tell" in body["graft"]["notes"][0]


@pytest.mark.parametrize("top_n", [None, 2, 3, 1000])
def test_no_more_than_asked_for_and_no_more_than_there_are(top_n: int | None) -> None:
    asked = RerankRequestV2.model_validate({"model": "lengths", "query": "q", "documents": ["a", "b"], "top_n": top_n})
    assert len(asyncio.run(answer("lengths", Lengths(), asked))["results"]) == 2


def test_documents_come_back_in_the_first_form_unless_not_wanted() -> None:
    fields: dict[str, Any] = {"model": "lengths", "query": "q", "documents": ["a"]}
    wanted = [
        (RerankRequestV1.model_validate(fields), True),
        (RerankRequestV1.model_validate({**fields, "return_documents": True}), True),
        (RerankRequestV1.model_validate({**fields, "return_documents": False}), False),
        (RerankRequestV2.model_validate(fields), False),
    ]
    for asked, shown in wanted:
        body = asyncio.run(answer("lengths", Lengths(), asked))
        assert ("document" in body["results"][0]) is shown


def test_what_is_not_followed_is_a_warning() -> None:
    fields = {"model": "lengths", "query": "q", "documents": ["a"], "max_tokens_per_doc": 512, "priority": 3}
    body = asyncio.run(answer("lengths", Lengths(), RerankRequestV2.model_validate(fields)))
    assert body["meta"]["api_version"] == {"version": "2"}
    (warning,) = body["meta"]["warnings"]
    assert "max_tokens_per_doc, priority" in warning


@pytest.mark.parametrize("scores", [[1.0], [1.0, float("nan")], [float("inf"), 0.0], [1.0, 2.0, 3.0]])
def test_scores_that_are_no_scores_are_an_error(scores: list[float]) -> None:
    class Broken:
        async def score(self, query: str, documents: list[str]) -> Sequence[float]:
            return scores

    with pytest.raises(ModelError, match="broken"):
        asyncio.run(answer("broken", Broken(), RerankRequestV1(query="q", documents=["a", "b"])))
