"""Every method with the embedded model on a real server: its contract, not its wisdom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from generators.models.vllm import VLLM
from rag import (
    BM25,
    CRAG,
    AdaptiveRAG,
    Answer,
    Calculator,
    ChainOfNote,
    Cited,
    Corpus,
    Decompose,
    Flare,
    FlareInstruct,
    HyDE,
    IRCoT,
    IterRetGen,
    Pipeline,
    SelfAsk,
    SelfRAG,
    Toolformer,
    list_files,
    read_files,
)
from rag.core.sync import run_sync
from rag.core.trace import Retrieved, TextDelta

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook" / "docs"
QUESTION = "How long may a suit be worn outside?"

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    made = Corpus.create(tmp_path_factory.mktemp("generators") / "handbook")
    made.add(read_files(list_files(HANDBOOK), lambda skipped: None))
    yield made
    made.close()


METHODS: dict[str, Callable[[VLLM], Any]] = {
    "flare": lambda model: Flare(model, max_tokens=64),
    "flare_explicit": lambda model: Flare(model, max_tokens=48, query="explicit"),
    "flare_instruct": lambda model: FlareInstruct(model, max_tokens=64),
    "self_rag": lambda model: SelfRAG(model, k=3, max_tokens=48, mode="always"),
    "self_rag_long": lambda model: SelfRAG(model, k=2, max_tokens=48, form="long", mode="always", depth=2),
    "ircot": lambda model: IRCoT(model, k=2, max_steps=3, max_tokens=48, step_tokens=32),
    "iter_retgen": lambda model: IterRetGen(model, k=2, max_tokens=48),
    "self_ask": lambda model: SelfAsk(model, k=2, max_steps=2),
    "crag": lambda model: CRAG(model, k=3, max_tokens=48),
    "adaptive": lambda model: AdaptiveRAG(model, "model", k=2, max_steps=2, max_tokens=48),
    "chain_of_note": lambda model: ChainOfNote(model, k=2, max_tokens=48, note_tokens=32),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_answers_streams_and_leaves_a_trace(served: VLLM, corpus: Corpus, name: str) -> None:
    pipe = Pipeline().add("search", BM25(corpus, k=4)).add("answer", METHODS[name](served)).connect("search", "answer.retriever")

    async def follow() -> tuple[str, list[Retrieved], Any]:
        text, searches = "", []
        async for event in pipe.astream(QUESTION):
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Retrieved):
                searches.append(event)
        return text, searches, event

    text, searches, run = run_sync(follow())
    answer = run.value
    assert isinstance(answer, Answer)
    assert answer.text.strip()
    assert text.strip(), "nothing was streamed"
    assert answer.text.startswith(text)
    assert run.trace.total("calls") >= 1
    assert run.trace.total("retrievals") == len(searches)
    assert run.trace.all_notes(), "a decision of the method should be told in the trace"
    assert [hit.rank for hit in answer.sources] == list(range(1, len(answer.sources) + 1))


def test_flare_costs_one_call_for_a_sure_sentence_and_two_for_a_doubted_one(served: VLLM, corpus: Corpus) -> None:
    for theta in (0.0, 0.4, 2.0):
        pipe = Pipeline().add("search", BM25(corpus, k=2)).add("answer", Flare(served, max_tokens=64, theta=theta))
        run = pipe.connect("search", "answer.retriever").explain(QUESTION)
        total = run.trace.total
        assert run.ok
        assert total("calls") == total("steps") + total("triggered")
        assert total("retrievals") <= 1 + total("steps")
        if theta == 0.0:
            assert (total("triggered"), total("retrievals")) == (0, 1)


def test_hyde_and_decompose_search_for_a_reader(served: VLLM, corpus: Corpus) -> None:
    hyde = Pipeline().add("search", HyDE(served, corpus, n=2, max_tokens=32)).add("answer", Cited(served, 2, 48))
    run = hyde.connect("search", "answer.retriever").explain(QUESTION)
    assert run.value.sources
    assert run.trace.total("calls") == 3
    parts = Pipeline().add("search", BM25(corpus)).add("parts", Decompose(served, most=2)).add("answer", Cited(served, 2, 48))
    run = parts.connect("search", "parts.retriever").connect("parts", "answer.retriever").explain(QUESTION)
    assert run.value.sources


def test_toolformer_without_its_calls_writes_plain_text(served: VLLM) -> None:
    plain = Pipeline().add("answer", Toolformer(served, [Calculator()], k=0, max_tokens=24)).explain("What is 27 + 4 * 2?")
    assert plain.value.text.strip()
    assert plain.trace.total("tool_calls") == 0
    calling = Pipeline().add("answer", Toolformer(served, [Calculator()], k=10, max_tokens=48)).explain("What is 27 + 4 * 2?")
    assert calling.value.text.strip()
    assert calling.trace.total("tool_calls") <= 1
