"""`Stitched` on a server, beside `Stitched` in process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.models.stitched.encoder import LocalEncoder
from generators.models.vllm import VLLM
from generators.models.vllm_contexts.certificate import Certificate, certify, label_of
from generators.stitched import Stitched
from rag.core.errors import ConfigError, InputError, PromptTooLong
from rag.core.pipeline import Pipeline
from rag.core.registry import configuration
from rag.core.trace import TextDelta, listener, span
from retrievers.context.store import ContextStore
from tests.generators.conftest import ScriptedRetriever
from tests.generators.models.vllm_contexts.conftest import SENTENCES
from tests.generators.models.vllm_contexts.engine import Engine, model

TEXTS = list(SENTENCES.values())
QUESTION = "Who keeps the lamp?"


@pytest.fixture
def engine(encoder: LocalEncoder, folder: str) -> Engine:
    return Engine(encoder.decoder, folder)


@pytest.fixture
def certified(kept: Path, encoder: LocalEncoder) -> str:
    certify(kept, Certificate("0.32.0", "float32", label_of(encoder.identity), "float32", 0.0, 1e-3, 0.0, 1, "today"))
    return str(kept)


def run(made: Stitched, texts: list[str] = TEXTS) -> tuple[Any, Any]:
    with span("answer") as here:
        answer = asyncio.run(made.run(QUESTION, ScriptedRetriever(texts)))
    return answer, here


def test_a_server_answers_as_this_process_does_and_the_trace_counts_alike(certified: str, engine: Engine, folder: str) -> None:
    served, here = run(Stitched(certified, model(engine), max_tokens=8))
    local, there = run(Stitched(certified, folder, device="cpu", max_tokens=8))
    assert served.text == local.text
    assert served.sources == local.sources
    assert served.finish == local.finish
    assert (here.counts["contexts_hit"], here.counts["contexts_missed"]) == (3, 0)
    assert here.counts["tokens_reused"] > there.counts["tokens_reused"]  # what stands around the passages too
    (call,) = here.children
    assert (call.name if hasattr(call, "name") else call.node) == "chat tiny"
    assert call.counts["calls"] == 1
    assert call.counts["prompt_tokens"] == there.children[0].counts["prompt_tokens"]
    assert here.notes == []


def test_a_passage_that_the_store_lacks_costs_the_whole_prompt_and_is_told(certified: str, engine: Engine) -> None:
    engine.fault = "refused"
    _, here = run(Stitched(certified, model(engine), max_tokens=4), [*TEXTS, "nobody stored this"])
    assert (here.counts["contexts_hit"], here.counts["contexts_missed"], here.counts["tokens_reused"]) == (0, 4, 0)
    assert here.notes == ["passage 'p4' is not in the store, so the server reads the prompt in full"]


def test_pieces_reach_the_listener(certified: str, engine: Engine) -> None:
    heard: list[object] = []
    with listener(heard.append):
        answer, _ = run(Stitched(certified, model(engine), max_tokens=8))
    assert "".join(event.text for event in heard if isinstance(event, TextDelta)) == answer.text


def test_an_unchecked_server_is_refused_before_it_is_asked(kept: Path, engine: Engine) -> None:
    with pytest.raises(ConfigError, match="rag contexts check"):
        run(Stitched(str(kept), model(engine)))
    assert engine.bodies == []


def test_an_adapter_is_worn_by_the_model_on_the_server(certified: str, engine: Engine) -> None:
    made = Stitched(certified, model(engine), adapter="law", max_tokens=4)
    run(made)
    assert engine.bodies[-1]["model"] == "law"


def test_passages_that_do_not_fit(certified: str, engine: Engine) -> None:
    answer, _ = run(Stitched(certified, model(engine), max_tokens=8), [TEXTS[0], "the cat " * 200])
    assert "dropped passage 'p2'" in answer.notes[0]
    with pytest.raises(PromptTooLong, match="not even the best"):
        run(Stitched(certified, model(engine), max_tokens=8), ["the cat " * 200])


@pytest.mark.parametrize("settings", [{"recompute": 0.15}, {"attention": "full"}, {"store": None, "attention": "full"}])
def test_what_a_server_cannot_do_is_refused(certified: str, engine: Engine, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="leave out recompute and attention"):
        Stitched(**({"store": certified, "model": model(engine)} | settings))
    with pytest.raises(InputError, match="a name, a folder or a VLLM"):
        Stitched(certified, model=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="contexts=True"):
        Stitched(certified, VLLM())


def test_an_open_store_and_a_yaml_file(certified: str, engine: Engine, tmp_path: Path) -> None:
    assert run(Stitched(ContextStore(certified), model(engine), max_tokens=4))[0].text  # type: ignore[arg-type]
    made = Stitched(certified, VLLM("http://localhost:8000/v1", contexts=True), k=2)
    assert configuration(made.model) == {"contexts": True}
    pipe = Pipeline()
    pipe.add("answer", made)
    (tmp_path / "served.yaml").write_text(pipe.to_yaml())
    again = Pipeline.from_yaml(tmp_path / "served.yaml")
    assert again.to_yaml() == pipe.to_yaml()
    assert again.nodes["answer"].component.model.contexts is True
