"""kNN-LM as a model: what it writes and scores is the mixture's, token by token."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generators.knn_lm import KNNLM, Datastore, Decoder, Interpolation, Windows
from generators.models.local import Local
from rag.core.errors import CorpusMismatch, CorpusNotFound, InputError, MissingCapability, PromptTooLong
from rag.core.protocols import LanguageModel
from rag.core.registry import configuration
from rag.core.types import Generation, Message, Sampling

torch = pytest.importorskip("torch")
pytest.importorskip("faiss")
from tests.generators.knn_lm import tiny  # noqa: E402

PROMPT = "the dog sat on the"
GREEDY = Sampling(max_tokens=12, logprobs=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and a datastore that it has read."""
    folder = tiny.saved(tmp_path_factory.mktemp("model"))
    store = tmp_path_factory.mktemp("store")
    Datastore.build(store, Decoder.load(str(folder), device="cpu"), tiny.TEXTS, Windows(60, 30))
    return folder, store


def model(folders: tuple[Path, Path], weight: float = 0.4, **more: Any) -> KNNLM:
    folder, store = folders
    return KNNLM(str(store), str(folder), weight, temperature=0.5, k=16, device="cpu", **more)


def mixture(folders: tuple[Path, Path], weight: float, ids: list[int]) -> np.ndarray:
    """log p of every next token after each of ``ids``, computed here."""
    decoder, store = Decoder.load(str(folders[0]), device="cpu"), Datastore(folders[1])
    keys, logits = decoder.keys_and_logits(ids, len(ids))
    return Interpolation(weight, 0.5, 16).distribution(logits.log_softmax(-1).numpy(), store.search(keys.numpy(), 16))


@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_it_writes_the_mixtures_best_tokens(folders: tuple[Path, Path], weight: float) -> None:
    got = model(folders, weight).generate(PROMPT, GREEDY)
    ids = [tiny.LETTERS.index(letter) for letter in PROMPT]
    whole = mixture(folders, weight, [*ids, *(token.id for token in got.tokens)])[len(ids) - 1 : -1]
    assert [token.id for token in got.tokens] == whole.argmax(axis=1).tolist()
    assert [token.logprob for token in got.tokens] == pytest.approx(whole.max(axis=1).tolist(), abs=1e-4)


def test_without_weight_it_is_the_model(folders: tuple[Path, Path]) -> None:
    plain = Local(str(folders[0]), device="cpu").generate(PROMPT, GREEDY)
    alone, mixed = (model(folders, weight).generate(PROMPT, GREEDY) for weight in (0.0, 1.0))
    assert alone.text == plain.text != mixed.text
    assert [token.logprob for token in alone.tokens] == pytest.approx([token.logprob for token in plain.tokens], abs=1e-4)


def test_scores_are_those_of_the_mixture(folders: tuple[Path, Path]) -> None:
    found = model(folders).score("the dog", " sat")
    ids = [tiny.LETTERS.index(letter) for letter in "the dog sat"]
    whole = mixture(folders, 0.4, ids)
    assert [token.logprob for token in found.tokens] == pytest.approx([whole[at - 1, ids[at]] for at in range(7, 11)], abs=1e-4)


def test_calls_in_flight_do_not_mix(folders: tuple[Path, Path]) -> None:
    prompts = [PROMPT, "a", "the cat"]
    one = model(folders)
    alone = [one.generate(prompt, GREEDY).text for prompt in prompts]

    async def together() -> list[Generation]:
        return await asyncio.gather(*(one.agenerate(prompt, GREEDY) for prompt in prompts))

    assert [each.text for each in asyncio.run(together())] == alone


def test_it_has_a_models_face(folders: tuple[Path, Path]) -> None:
    one = model(folders)
    assert isinstance(one, LanguageModel)
    assert one.window == 64

    async def rest() -> tuple[list[str | Generation], int, list[int]]:
        return [piece async for piece in one.astream(PROMPT, GREEDY)], await one.acount("abc"), await one.aencode("abc")

    pieces, length, ids = asyncio.run(rest())
    assert pieces[0] == one.generate(PROMPT, GREEDY).text
    assert isinstance(pieces[-1], Generation)
    assert (length, ids) == (3, [1, 2, 3])
    assert configuration(one)["weight"] == 0.4


def test_bad_calls(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one = model(folders)
    with pytest.raises(InputError, match="from 0 to 1"):
        model(folders, 1.2)
    with pytest.raises(InputError, match="the tokens 0 to 27"):
        one.generate("a", Sampling(logit_bias={28: 1.0}))
    with pytest.raises(PromptTooLong):
        one.generate("a" * 64)
    with pytest.raises(PromptTooLong):
        one.score("a" * 60, "abcde")
    with pytest.raises(MissingCapability, match="no chat template"):
        one.generate([Message("user", "a")])
    with pytest.raises(CorpusNotFound):
        KNNLM(str(tmp_path / "none"), str(folders[0])).generate("a")
    other = tiny.saved(tmp_path / "other", seed=1)
    with pytest.raises(CorpusMismatch, match="another model"):
        KNNLM(str(folders[1]), str(other), device="cpu").generate("a")
