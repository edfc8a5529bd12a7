"""A datastore gives back what was read, and refuses what is damaged or another model's."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from generators.knn_lm import Datastore, Windows
from rag.core.errors import CorpusDamaged, CorpusMismatch, CorpusNotFound, InputError

pytest.importorskip("torch")
pytest.importorskip("faiss")
from tests.generators.knn_lm import tiny

WINDOWS = Windows(12, 8)


@pytest.fixture
def store(tmp_path: Path) -> Datastore:
    return Datastore.build(tmp_path / "store", tiny.decoder(), tiny.TEXTS, WINDOWS)


def queries() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(7, 16)).astype(np.float32)


def entries() -> tuple[np.ndarray, np.ndarray]:
    """All vectors and the tokens behind them, text by text and window by window, computed here without the builder."""
    decoder = tiny.decoder()
    keys, tokens = [], []
    for text in tiny.TEXTS:
        ids = decoder.ids(text)
        for window in WINDOWS.of(len(ids)):
            [vectors] = decoder.keys([ids[window.begin : window.end]])
            for at in range(window.first, window.end):
                keys.append(vectors[at - 1 - window.begin].numpy())
                tokens.append(ids[at])
    return np.array(keys), np.array(tokens)


def test_the_nearest_are_found_with_their_distances(store: Datastore) -> None:
    keys, tokens = entries()
    assert len(store) == len(keys) == sum(max(0, len(text) - 1) for text in tiny.TEXTS)
    found = store.search(queries(), 5)
    distances = ((queries()[:, None] - keys[None]) ** 2).sum(axis=2)
    assert found.distances == pytest.approx(np.sort(distances, axis=1)[:, :5], rel=1e-2)
    assert found.tokens[:, 0].tolist() == tokens[distances.argmin(axis=1)].tolist()


def test_each_context_finds_itself(store: Datastore) -> None:
    keys, tokens = entries()
    found = store.search(keys, 2)  # two texts begin with the same letters, so that a context may be there twice
    assert (found.tokens == tokens[:, None]).any(axis=1).all()
    assert (found.tokens[:, 0] == tokens).mean() > 0.9
    assert found.distances[:, 0].max() < 1e-3


def test_more_neighbours_than_entries(store: Datastore) -> None:
    found = store.search(queries(), 10_000)
    assert found.tokens.shape == (7, len(store))
    assert (found.tokens >= 0).all()


def test_clusters_that_hold_too_few_leave_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generators.knn_lm.build.EXACT", 1)
    Datastore.build(tmp_path / "store", tiny.decoder(), tiny.TEXTS, WINDOWS)
    found = Datastore(tmp_path / "store", probe=1).search(queries(), 60)
    gaps = found.tokens == -1
    assert gaps.any()
    assert not gaps[:, 0].any()
    assert (np.isinf(found.distances) == gaps).all()


def test_what_cannot_be_searched(store: Datastore) -> None:
    with pytest.raises(InputError, match=r"are \[queries, 16\], not \[7, 15\]"):
        store.search(queries()[:, :15], 1)
    with pytest.raises(InputError, match="NaN or infinity"):
        store.search(np.full((1, 16), np.nan), 1)
    with pytest.raises(InputError, match="at least 1, not 0"):
        store.search(queries(), 0)
    with pytest.raises(InputError, match="at least 1, not 0"):
        Datastore(store.folder, probe=0)


def test_another_models_is_refused(store: Datastore) -> None:
    store.check(tiny.decoder().source)
    with pytest.raises(CorpusMismatch, match="another model"):
        store.check(tiny.decoder(seed=1).source)
    with pytest.raises(CorpusMismatch, match=r"another dimension \(16, not 32\)"):
        store.check(tiny.decoder(width=32).source)
    with pytest.raises(CorpusMismatch, match="another place"):
        store.check(tiny.decoder("gpt2").source)


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFound, match="no finished datastore"):
        Datastore(tmp_path / "none")


@pytest.mark.parametrize("name", ["index.faiss", "tokens.npy"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_file_is_named(store: Datastore, name: str, damage: str) -> None:
    file = store.folder / name
    data = bytearray(file.read_bytes())
    file.unlink()
    if damage == "flipped":
        data[-20] ^= 1
    if damage == "truncated":
        del data[-20:]
    if damage != "missing":
        file.write_bytes(data)
    with pytest.raises(CorpusDamaged, match=name):
        Datastore(store.folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "plan": {"source": 3}}', "\udcff"])
def test_a_manifest_that_is_none(store: Datastore, text: str) -> None:
    (store.folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CorpusDamaged, match=r"manifest\.json"):
        Datastore(store.folder)


def test_a_manifest_that_lies(store: Datastore) -> None:
    manifest = store.folder / "manifest.json"
    honest = manifest.read_text()
    for path, value in ((("plan", "entries"), 5), (("plan", "source", "dim"), 8), (("lists",), 0), (("plan", "windows", "stride"), 99)):
        tiny.edit(manifest, *path, value=value)
        with pytest.raises(CorpusDamaged):
            Datastore(store.folder)
        manifest.write_text(honest)
    tiny.edit(manifest, "format", value=2)
    with pytest.raises(CorpusMismatch, match="its format is 2, this version reads 1"):
        Datastore(store.folder)


def test_a_manifest_names_no_file_elsewhere(store: Datastore) -> None:
    manifest = store.folder / "manifest.json"
    files = json.loads(manifest.read_text())["files"]
    tiny.edit(manifest, "files", value={**files, "../tokens.npy": files["tokens.npy"]})
    with pytest.raises(CorpusDamaged, match="names the files"):
        Datastore(store.folder)


def _search(folder: str) -> list[int]:
    return [int(token) for token in Datastore(folder).search(queries(), 3).tokens.ravel()]


def test_several_processes_read_one(store: Datastore) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.map(_search, [str(store.folder)] * 6)
    assert found == [_search(str(store.folder))] * 6
