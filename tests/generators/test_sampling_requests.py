"""Methods that write the answer in one go follow what a run asks of its sampling; all else that they write stays as it is."""

from __future__ import annotations

import asyncio

import pytest

from generators.adaptive_rag import AdaptiveRAG
from generators.chain_of_note import ChainOfNote
from generators.cited import Cited, cited_prompt
from generators.crag.crag import CRAG
from generators.direct import Direct
from generators.ircot import IRCoT
from rag.core.pipeline import Pipeline
from rag.core.types import Hit, Sampling, SamplingRequest
from tests.generators.conftest import ScriptedModel, hits_of

QUESTION = "Who keeps the lamp of the north tower?"
PASSAGE = "Mira Sollen keeps the lamp of the north tower since 1911, and has its key."
ASKED = SamplingRequest(max_tokens=3, temperature=0.7, top_p=0.9, seed=11, presence_penalty=0.5, frequency_penalty=-0.5)
WANTED = Sampling(max_tokens=3, temperature=0.7, top_p=0.9, seed=11, presence_penalty=0.5, frequency_penalty=-0.5)


class Labels:
    """A classifier that gives one label."""

    def __init__(self, label: str) -> None:
        self.label = label

    async def aclassify(self, question: str) -> str:
        return self.label


class Content:
    """An evaluator that is content with everything."""

    async def ascore(self, question: str, texts: list[str]) -> list[float]:
        return [1.0] * len(texts)


async def search(query: str) -> list[Hit]:
    return hits_of(PASSAGE)


def asked(method, sampling: SamplingRequest | None, **settings):
    """The answer, and the sampling of the call that wrote it and of those before."""
    model = ScriptedModel("Mira Sollen keeps the lamp of the north tower.")
    pipe = Pipeline().add("answer", method(model, **settings))
    if method is not Direct:
        pipe.add("search", search).connect("search", "answer.retriever")
    answer = pipe.run(QUESTION, **({} if sampling is None else {"sampling": sampling}))
    *before, last = model.samplings
    return answer, last, before


METHODS = [
    (Direct, {}),
    (Cited, {}),
    (ChainOfNote, {}),
    (IRCoT, {}),
    (CRAG, {"evaluator": Content()}),
    *((AdaptiveRAG, {"classifier": Labels(label)}) for label in "ABC"),
]


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_the_answer_is_written_as_asked_and_nothing_else_is(method, settings):
    answer, last, before = asked(method, ASKED, **settings)
    assert last == WANTED
    assert answer.finish == "length"
    assert "the answer was cut off at max_tokens=3" in answer.notes
    assert all((sampling.temperature, sampling.seed) == (0.0, None) for sampling in before)
    assert before == asked(method, None, **settings)[2]


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_without_a_request_it_is_greedy_and_ends_by_itself(method, settings):
    answer, last, _ = asked(method, None, **settings)
    assert last == Sampling(max_tokens=256)
    assert answer.finish == "stop"


@pytest.mark.parametrize("method", [Direct, Cited])
def test_a_request_lowers_the_methods_own_limit_and_never_raises_it(method):
    for wanted, given in ((None, 8), (5, 5), (8, 8), (9, 8)):
        assert asked(method, SamplingRequest(max_tokens=wanted), max_tokens=8)[1].max_tokens == given


def test_a_shorter_answer_leaves_room_for_a_longer_prompt():
    hits = hits_of(PASSAGE, f"{PASSAGE} {PASSAGE}")
    window = asyncio.run(ScriptedModel().acount(cited_prompt(QUESTION, hits, "en"))) + 10

    def notes(wanted: int) -> str:
        cited = Cited(ScriptedModel("Mira.", window=window), max_tokens=50)
        return str(asyncio.run(cited.read(QUESTION, hits, SamplingRequest(max_tokens=wanted))).notes)

    assert "dropped" not in notes(10)
    assert "(max_tokens=11 included)" in notes(11)
