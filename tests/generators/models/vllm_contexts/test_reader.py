from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.models.stitched.encoder import LocalEncoder  # noqa: E402
from generators.models.stitched.prompt import PASSAGES  # noqa: E402
from generators.models.stitched.reader import Reader  # noqa: E402
from generators.models.vllm_contexts.certificate import Certificate, certify, label_of  # noqa: E402
from generators.models.vllm_contexts.fixed import build_fixed, fixed_blocks  # noqa: E402
from generators.models.vllm_contexts.metrics import identity_label  # noqa: E402
from generators.models.vllm_contexts.reader import ServedReader  # noqa: E402
from generators.models.vllm_contexts.shelves import FIXED  # noqa: E402
from generators.prompts import render  # noqa: E402
from rag.core.errors import ConfigError, CorpusMismatch, CorpusNotFound, InputError  # noqa: E402
from rag.core.trace import Span, TextDelta, listener, span  # noqa: E402
from rag.core.types import Generation, Sampling  # noqa: E402
from retrievers.context.store import ContextStore  # noqa: E402
from tests.generators.models.vllm_contexts.conftest import SENTENCES as TEXTS  # noqa: E402
from tests.generators.models.vllm_contexts.engine import Engine, model  # noqa: E402

MESSAGE = render("cited", "en", passages=PASSAGES, question="Who keeps the lamp?")
MAX = 8


@pytest.fixture
def certified(kept: Path, encoder: LocalEncoder) -> Path:
    certify(kept, Certificate("0.32.0", "float32", label_of(encoder.identity), "float32", 0.0, 1e-3, 0.0, 1, "today"))
    return kept


@pytest.fixture
def engine(encoder: LocalEncoder, folder: str) -> Engine:
    return Engine(encoder.decoder, folder)


def written(reader: ServedReader, texts: dict[str, str] = TEXTS, **sampling: Any) -> tuple[Generation, Span]:
    prompt = reader.prepare(MESSAGE, list(texts), list(texts.values()), MAX)
    with span("answer") as here:
        answer = asyncio.run(reader.written(prompt, Sampling(MAX, **sampling)))
    return answer, here


def test_the_prompt_is_the_one_that_is_read_in_process(kept: Path, encoder: LocalEncoder, engine: Engine) -> None:
    served = ServedReader(model(engine), str(kept)).prepare(MESSAGE, list(TEXTS), list(TEXTS.values()), MAX)
    local = Reader(encoder, str(kept)).prepare(MESSAGE, list(TEXTS), list(TEXTS.values()), MAX)
    assert served.tokens == local.tokens
    assert served.borders == [block.end for block in local.blocks]
    assert served.question == local.question
    assert (served.passages, served.hits, served.reused, served.notes) == (3, 3, local.start, [])


def test_the_server_is_told_the_borders_and_answers_as_this_process(certified: Path, encoder: LocalEncoder, engine: Engine) -> None:
    from generators.models.decoding import Writing

    answer, here = written(ServedReader(model(engine), str(certified)))
    reader = Reader(encoder, str(certified))
    prepared = reader.prepare(MESSAGE, list(TEXTS), list(TEXTS.values()), MAX)
    assert answer.text == reader.answer(prepared, Writing(prepared.tokens, Sampling(MAX))).text
    (body,) = engine.bodies
    assert body["kv_transfer_params"] == {"graft": {"borders": [block.end for block in prepared.blocks]}}
    assert body["prompt"] == prepared.tokens
    assert here.notes == []


def test_pieces_come_as_they_are_written(certified: Path, engine: Engine) -> None:
    heard: list[object] = []
    reader = ServedReader(model(engine), str(certified))
    with listener(heard.append):
        answer, _ = written(reader)
    assert "".join(event.text for event in heard if isinstance(event, TextDelta)) == answer.text
    assert engine.bodies[-1]["stream"] is True


def test_a_tenant_sends_its_key(certified: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ServedReader(model(engine, contexts={"tenant": "red", "key_env": "RED_KEY"}), str(certified))
    with pytest.raises(ConfigError, match="RED_KEY, which should hold the key of the tenant 'red', is not set"):
        written(reader)
    monkeypatch.setenv("RED_KEY", "the key")
    written(reader)
    claim = engine.bodies[-1]["kv_transfer_params"]["graft"]
    assert (claim["tenant"], claim["key"]) == ("red", "the key")


@pytest.mark.parametrize("contexts", [False, {}, "red", {"tenant": "red"}, {"tenant": "red", "key_env": ""}, {"tenant": "red", "key": "k"}])
def test_a_model_that_does_not_say_so_is_refused(kept: Path, engine: Engine, contexts: Any) -> None:
    with pytest.raises(InputError, match="contexts"):
        ServedReader(model(engine, contexts=contexts), str(kept))


def test_what_is_missing_is_told_and_nothing_counts_as_reused(certified: Path, engine: Engine) -> None:
    reader = ServedReader(model(engine), str(certified))
    prompt = reader.prepare(MESSAGE, ["p1", "new"], [TEXTS["p1"], "a passage that nobody stored"], MAX)
    assert (prompt.passages, prompt.hits, prompt.reused) == (2, 0, 0)
    assert prompt.notes == ["passage 'new' is not in the store, so the server reads the prompt in full"]
    changed = reader.prepare(MESSAGE, ["p1"], [TEXTS["p1"] + " again"], MAX)
    assert changed.notes == ["passage 'p1' is not in the store, so the server reads the prompt in full"]
    moved = reader.prepare(MESSAGE, ["other"], [TEXTS["p1"]], MAX)
    assert moved.hits == 1  # it is the tokens that count
    shutil.rmtree(certified / FIXED)
    bare = ServedReader(model(engine), str(certified)).prepare(MESSAGE, ["p1"], [TEXTS["p1"]], MAX)
    assert bare.notes == ["what stands around the passages is not in the store, so the server reads the prompt in full"]


def test_as_many_passages_as_fit(kept: Path, engine: Engine) -> None:
    reader = ServedReader(model(engine), str(kept))
    long = "the cat " * 200
    assert reader.prepare(MESSAGE, ["a", "b"], [TEXTS["p1"], long], MAX).passages == 1
    assert reader.prepare(MESSAGE, ["b"], [long], MAX).passages == 0
    with pytest.raises(InputError, match="the question is too long"):
        reader.prepare(MESSAGE.replace("lamp", "lamp " * 300), ["a"], [TEXTS["p1"]], MAX)


def test_a_server_that_reads_in_full_is_noted(certified: Path, engine: Engine) -> None:
    engine.fault = "refused"
    _, here = written(ServedReader(model(engine), str(certified)))
    assert here.notes == ["the server read the prompt in full: damaged"]
    engine.fault = "silent"
    reader = ServedReader(model(engine), str(certified))
    _, here = written(reader)
    assert here.notes == ["the server read the prompt in full: it was started without contexts since it was asked"]
    engine.contexts = False
    with pytest.raises(ConfigError, match="loads no contexts"):  # it is asked again
        written(reader)


def test_nobody_asks_a_server_that_was_not_checked(kept: Path, encoder: LocalEncoder, engine: Engine) -> None:
    def refused(said: str, error: type[Exception] = ConfigError) -> None:
        with pytest.raises(error, match=said):
            written(ServedReader(model(engine), str(kept)))
        assert engine.bodies == []

    refused("nobody has checked that vLLM 0.32.0 in float32")
    certify(kept, Certificate("0.32.0", "float32", label_of(encoder.identity), "float32", 0.0, 1e-3, 0.0, 1, "today"))
    engine.version = "0.33.0"
    refused("vLLM 0.33.0")
    engine.version, engine.dtype = "0.32.0", "bfloat16"
    refused("in bfloat16")
    engine.dtype, engine.identities = "float32", [identity_label({**asdict(encoder.identity), "adapter": "a" * 64})]
    refused("no store of the model and adapter", CorpusMismatch)
    engine.contexts = False
    refused("loads no contexts")


def test_the_tokenizer_is_that_of_the_store(kept: Path, engine: Engine, folder: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    held = json.loads((other / "tokenizer.json").read_text())
    held["added_tokens"][0]["normalized"] = not held["added_tokens"][0]["normalized"]
    (other / "tokenizer.json").write_text(json.dumps(held))
    with pytest.raises(CorpusMismatch, match="another tokenizer"):
        ServedReader(model(engine, tokenizer=str(other)), str(kept)).prepare(MESSAGE, [], [], MAX)
    assert ServedReader(model(engine, tokenizer=folder), str(kept)).prepare(MESSAGE, [], [], MAX).passages == 0
    engine.root = ""
    with pytest.raises(ConfigError, match="name its tokenizer"):
        ServedReader(model(engine), str(kept)).prepare(MESSAGE, [], [], MAX)
    with pytest.raises(CorpusNotFound):
        ServedReader(model(engine, tokenizer=folder), str(tmp_path / "none")).prepare(MESSAGE, [], [], MAX)


def test_fixed_blocks_are_stored_once_and_mended(kept: Path, encoder: LocalEncoder) -> None:
    blocks = fixed_blocks(encoder)
    assert set(blocks) == {"between", "before.en", "before.zh"}
    assert len(ContextStore(kept / FIXED)) == len(set(blocks.values())) == 2  # the template begins alike in both languages
    assert build_fixed(kept, encoder, "float32").encoded == 0
    (kept / FIXED / "manifest.json").write_text("{}")
    assert build_fixed(kept, encoder, "float32").encoded == 2
    assert build_fixed(kept, encoder, "int8").encoded == 2
    assert ContextStore(kept / FIXED).numbers.name == "int8"
    assert len(ContextStore(kept)) == 3
