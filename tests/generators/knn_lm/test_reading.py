"""Each token's probability against one plain forward pass, and a datastore that lowers the perplexity of what it has read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from generators.knn_lm import Datastore, Interpolation, Reader, Windows, perplexity
from rag.core.errors import CorpusMismatch, InputError

torch = pytest.importorskip("torch")
pytest.importorskip("faiss")
from tests.generators.knn_lm import tiny  # noqa: E402

WINDOWS = Windows(12, 8)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_the_base_is_the_models_own(tmp_path: Path, name: str) -> None:
    decoder = tiny.decoder(name)
    store = Datastore.build(tmp_path, decoder, tiny.TEXTS, WINDOWS)
    ids = decoder.ids(tiny.TEXTS[0])
    whole = Reader(decoder, store, 4, Windows(60, 30)).read(ids)
    with torch.inference_mode():
        plain = decoder.model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    assert whole.base == pytest.approx(plain[range(len(ids) - 1), ids[1:]].numpy(), abs=1e-6)
    slid = Reader(decoder, store, 4, WINDOWS).read(ids)
    assert slid.targets.tolist() == whole.targets.tolist() == ids[1:]
    assert slid.base[:11] == pytest.approx(whole.base[:11], abs=1e-6)
    with torch.inference_mode():  # token 12 is the first of the second window, which begins at 8
        second = decoder.model(torch.tensor([ids[8:12]])).logits[0, -1].log_softmax(-1)
    assert slid.base[11] == pytest.approx(float(second[ids[12]]), abs=1e-6)


def test_what_was_read_is_predicted_better(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    reader = Reader(decoder, Datastore.build(tmp_path, decoder, tiny.TEXTS, WINDOWS), 8, WINDOWS)
    reading = reader.read(decoder.ids(tiny.TEXTS[0]))
    base = perplexity([reading.base])
    assert perplexity([reading.logprobs(Interpolation(0.0, 1.0, 8))]) == pytest.approx(base)
    assert perplexity([reading.logprobs(Interpolation(0.5, 0.01, 8))]) < base / 2  # each context finds itself at distance 0
    with pytest.raises(InputError, match="only 8 neighbours"):
        reading.logprobs(Interpolation(0.5, 1.0, 9))


def test_a_mean_over_all_tokens() -> None:
    assert perplexity([np.log([0.5, 0.5, 0.5]), np.log([0.25])]) == pytest.approx(2 ** (5 / 4))
    assert perplexity([np.array([-math.inf, 0.0])]) == math.inf
    with pytest.raises(InputError, match="no tokens"):
        perplexity([])


def test_what_cannot_be_read(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    store = Datastore.build(tmp_path, decoder, tiny.TEXTS, WINDOWS)
    with pytest.raises(CorpusMismatch, match="another model"):
        Reader(tiny.decoder(seed=1), store)
    with pytest.raises(InputError, match="reads at most 64"):
        Reader(decoder, store, windows=Windows(66, 8))
    with pytest.raises(InputError, match="needs two or more"):
        Reader(decoder, store, windows=WINDOWS).read([1])
