from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.models.stitched.encoder import LocalEncoder
from generators.models.vllm_contexts.certificate import certificates, label_of
from generators.models.vllm_contexts.check import EXACT, Gate, Tried, Unequal
from generators.models.vllm_contexts.fixed import build_fixed
from generators.models.vllm_contexts.shelves import FIXED
from rag.core.errors import ConfigError, CorpusMismatch, InputError
from rag.core.sync import run_sync
from retrievers.context.build import build
from retrievers.context.store import ContextStore
from tests.generators.models.vllm_contexts.engine import Engine, model


def run(store: Path, engine: Engine, encoder: LocalEncoder, **more: Any) -> tuple[Any, list[Tried]]:
    tried: list[Tried] = []
    return run_sync(Gate(store, model(engine), encoder).run(told=tried.append, **more)), tried


def test_a_server_that_answers_as_the_block_mask_is_certified(kept: Path, encoder: LocalEncoder, folder: str) -> None:
    engine = Engine(encoder.decoder, folder)
    certificate, tried = run(kept, engine, encoder, orders=3)
    assert certificates(kept) == [certificate]
    assert (certificate.version, certificate.dtype, certificate.numbers) == ("0.32.0", "float32", "float32")
    assert certificate.identity == label_of(encoder.identity)
    assert certificate.difference == max(one.difference for one in tried) <= 1e-4 < EXACT == certificate.tolerance
    assert certificate.prompts == len(tried) == 3
    assert all(one.same_text and one.numbers < 1e-4 and len(one.passages) > 1 for one in tried)
    assert max(one.apart for one in tried) > 10 * EXACT
    assert engine.tokens == 2 * sum(one.tokens for one in tried)
    assert len({body["cache_salt"] for body in engine.bodies}) == len(engine.bodies) == 9


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unmasked", "is off by .* and 0.001 is allowed"),
        ("shifted", r"is off by 0\.05"),
        ("silent", "it says nothing of contexts"),
        ("refused", r"did not load \d+ tokens from the store \(damaged\)"),
        ("uncounted", r"counts 0 loaded tokens where \d+ were asked for"),
    ],
)
def test_a_server_that_does_not_is_not(kept: Path, encoder: LocalEncoder, folder: str, fault: str, said: str) -> None:
    with pytest.raises(Unequal, match=said):
        run(kept, Engine(encoder.decoder, folder, fault=fault), encoder)
    assert certificates(kept) == []


def test_another_dtype_is_allowed_what_its_own_reading_is_off(kept: Path, encoder: LocalEncoder, folder: str) -> None:
    certificate, tried = run(kept, Engine(encoder.decoder, folder, dtype="bfloat16"), encoder)
    assert certificate.tolerance == max(EXACT, *(2 * one.plain for one in tried))
    with pytest.raises(Unequal, match=r"off by 0\.05"):
        run(kept, Engine(encoder.decoder, folder, dtype="bfloat16", fault="shifted"), encoder)


def test_the_number_format_is_told_apart_from_the_server(tmp_path: Path, encoder: LocalEncoder, folder: str) -> None:
    path = tmp_path / "coarse"
    texts = {f"p{number}": f"the cat {number} sat on the mat and ran {number}" for number in range(3)}
    build(path, texts.items(), encoder, "int8")
    build_fixed(path, encoder, "int8")
    with pytest.raises(Unequal, match="off by"):  # the script reads without a store, and so without its rounding
        run(path, Engine(encoder.decoder, folder), encoder)


def test_a_server_of_nothing_or_of_another_store_is_not_tried(kept: Path, encoder: LocalEncoder, folder: str) -> None:
    with pytest.raises(ConfigError, match="loads no contexts"):
        run(kept, Engine(encoder.decoder, folder, contexts=False), encoder)
    other = Engine(encoder.decoder, folder)
    other.identities = ["abc"]
    with pytest.raises(CorpusMismatch, match="no store of the model"):
        run(kept, other, encoder)
    assert other.bodies == []


def test_a_store_that_can_prove_nothing(tmp_path: Path, kept: Path, encoder: LocalEncoder, folder: str) -> None:
    old, short = tmp_path / "old", tmp_path / "short"
    build(old, [("a", "the cat"), ("b", "the dog")], encoder, "float32")
    with pytest.raises(ConfigError, match="an earlier version"):
        Gate(old, model(Engine(encoder.decoder, folder)), encoder)
    build(short, [("a", "the cat")], encoder, "float32")
    build_fixed(short, encoder, "float32")
    with pytest.raises(InputError, match="two passages that fit a prompt"):
        run(short, Engine(encoder.decoder, folder), encoder)
    assert len(ContextStore(kept / FIXED)) == 2
