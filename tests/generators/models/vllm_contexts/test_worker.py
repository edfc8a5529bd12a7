from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from generators.models.stitched.rotary import Rotary  # noqa: E402
from generators.models.vllm_contexts.claims import Claim, blocks_of  # noqa: E402
from generators.models.vllm_contexts.scheduler import Load  # noqa: E402
from generators.models.vllm_contexts.served import Served  # noqa: E402
from generators.models.vllm_contexts.shelves import Placed, Shelves  # noqa: E402
from generators.models.vllm_contexts.worker import WorkerSide  # noqa: E402
from tests.generators.models.vllm_contexts.conftest import BEFORE, BETWEEN, FREQUENCIES, MODEL, TEXTS, WordEncoder, prompt  # noqa: E402

A, B, _ = TEXTS.values()
PAGE, PAGES = 4, (5, 2, 7)
ROTARY = Rotary("half", FREQUENCIES)


class PlainLayer:
    """Keeps keys and values by slot, as an engine's layer is told to."""

    def __init__(self, dtype: Any = torch.float32) -> None:
        self.kv_cache = torch.zeros(8 * PAGE, 2, MODEL.heads, MODEL.head_dim, dtype=dtype)
        self.impl = self

    def do_kv_cache_update(self, layer: Any, key: Any, value: Any, kv_cache: Any, slot_mapping: Any) -> None:
        assert layer is self
        assert kv_cache is self.kv_cache
        assert key.dtype == value.dtype == kv_cache.dtype
        assert slot_mapping.dtype == torch.int64
        kv_cache[slot_mapping, 0], kv_cache[slot_mapping, 1] = key, value


def load_of(store: Path, start: int, *texts: str, pages: Sequence[int] = PAGES) -> Load:
    tokens, borders = prompt(*texts)
    blocks = blocks_of(Claim(borders=borders), tokens)
    return Load("r", start, tuple(pages), tuple(Placed(block, str(store)) for block in blocks))


def expected(*texts: str) -> tuple[Any, Any]:
    """Keys and values [layers, tokens, heads, head_dim] of the prompt's blocks where they stand."""
    spelt = [BEFORE]
    for number, text in enumerate(texts):
        spelt += [BETWEEN, text] if number else [text]
    encoded = [WordEncoder().one(text) for text in spelt]
    keys, values = (torch.cat([getattr(one, part) for one in encoded], dim=2) for part in ("keys", "values"))
    return ROTARY.rotate(keys, torch.arange(keys.shape[2])).transpose(1, 2), values.transpose(1, 2)


def slots(start: int, end: int) -> list[int]:
    return [PAGES[at // PAGE] * PAGE + at % PAGE for at in range(start, end)]


def worker(served: Served, ram_bytes: int = 1 << 20, dtype: Any = torch.float32) -> WorkerSide:
    return WorkerSide(Shelves(served, ram_bytes), PAGE, dtype)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 8])
def test_keys_are_turned_to_where_they_stand_and_written_behind_what_is_there(
    served: Served, store: Path, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generators.models.vllm_contexts.worker._AT_ONCE", 2 * MODEL.heads * 10 * MODEL.head_dim)  # two layers at a time
    side, layers = worker(served), [PlainLayer() for _ in range(MODEL.layers)]
    load = load_of(store, start, B, A)
    assert load.end == 10
    side.load([load], layers)
    keys, values = expected(B, A)
    for number, layer in enumerate(layers):
        torch.testing.assert_close(layer.kv_cache[slots(start, 10), 0], keys[number, start:], atol=1e-6, rtol=0)
        torch.testing.assert_close(layer.kv_cache[slots(start, 10), 1], values[number, start:], atol=0, rtol=0)
        others = sorted(set(range(8 * PAGE)) - set(slots(start, 10)))
        assert not layer.kv_cache[others].any()
    assert side.failures() == {}
    assert side.counts() == 10 - start
    assert side.counts() == 0


def test_the_order_of_passages_turns_the_same_numbers_to_other_places(served: Served, store: Path) -> None:
    layers = [[PlainLayer() for _ in range(MODEL.layers)] for _ in range(2)]
    for made, texts in zip(layers, ((A, B), (B, A)), strict=True):
        worker(served).load([load_of(store, 0, *texts)], made)
    first, second = (made[0].kv_cache for made in layers)
    torch.testing.assert_close(first[slots(2, 5), 1], second[slots(7, 10), 1])
    assert (first[slots(2, 5), 0] - second[slots(7, 10), 0]).abs().max() > 0.1


def test_numbers_are_cast_only_after_they_are_turned(served: Served, store: Path) -> None:
    layers = [PlainLayer(torch.bfloat16) for _ in range(MODEL.layers)]
    worker(served, dtype=torch.bfloat16).load([load_of(store, 0, A)], layers)
    keys, _ = expected(A)
    assert torch.equal(layers[1].kv_cache[slots(0, 5), 0], keys[1].to(torch.bfloat16))


def test_what_cannot_be_loaded_is_told_with_its_pages_and_the_rest_is_written(served: Served, store: Path) -> None:
    side, layers = worker(served, ram_bytes=0), [PlainLayer() for _ in range(MODEL.layers)]
    good = load_of(store, 0, A)
    side.load([good], layers)
    broken = Load("broken", 4, (1, 3, 6), load_of(store, 0, B, A).blocks)
    from retrievers.context.store import ContextStore

    segment, _ = ContextStore(store, ram_bytes=0).state().places["b"]
    shutil.rmtree(segment.folder)
    side.load([broken, good], layers)
    assert side.failures() == {"broken": frozenset({3, 6})}
    assert side.failures() == {}
    assert side.counts() == 10


def test_a_load_behind_pages_that_were_lost_is_lost_too(served: Served, store: Path) -> None:
    side, layers = worker(served, ram_bytes=0), [PlainLayer() for _ in range(MODEL.layers)]
    first, behind, apart = (load_of(store, start, B, A, pages=pages) for start, pages in ((0, PAGES), (8, (5, 2, 6)), (8, (0, 1, 3))))
    named = [Load(name, one.start, one.pages, one.blocks) for name, one in (("first", first), ("behind", behind), ("apart", apart))]
    from retrievers.context.store import ContextStore

    segment, _ = ContextStore(store, ram_bytes=0).state().places["b"]
    shutil.rmtree(segment.folder)
    side.load(named, layers)
    assert side.failures() == {"first": frozenset(PAGES), "behind": frozenset({6})}


def test_an_engine_with_other_layers_fails_without_an_error(served: Served, store: Path) -> None:
    side = worker(served)
    side.load([load_of(store, 0, A)], [PlainLayer()])
    assert side.failures() == {"r": frozenset({5, 2})}


def test_what_was_loaded_once_comes_from_memory(served: Served, store: Path) -> None:
    side, layers = worker(served), [PlainLayer() for _ in range(MODEL.layers)]
    side.load([load_of(store, 0, A)], layers)
    for file in store.rglob("contexts.safetensors"):
        file.unlink()
    side.load([load_of(store, 0, A)], layers)
    assert side.failures() == {}


def test_vllms_own_write_puts_them_where_its_kernel_looks(served: Served, store: Path) -> None:
    """What the CPU's write leaves of two loads is what it leaves of one, and its values lie as the sheet of the layout says."""
    cpu = pytest.importorskip("vllm.v1.attention.backends.cpu_attn", reason="vLLM is not installed")
    wide, page = 32, 32
    impl = cpu.CPUAttentionBackendImpl.__new__(cpu.CPUAttentionBackendImpl)
    impl.attn_type, impl.kv_cache_dtype = "decoder", "auto"
    keys, values = torch.randn(40, 2, wide), torch.randn(40, 2, wide)

    def written(*parts: slice) -> Any:
        layer = SimpleNamespace(isa="vec", _k_scale_float=1.0, _v_scale_float=1.0, impl=impl, kv_cache=torch.zeros(4, 2, page, 2 * wide))
        places = torch.tensor([(3, 1)[at // page] * page + at % page for at in range(40)])
        for part in parts:
            layer.impl.do_kv_cache_update(layer, keys[part], values[part], layer.kv_cache, places[part])
        return layer.kv_cache

    whole = written(slice(0, 40))
    assert torch.equal(whole, written(slice(0, 10), slice(10, 40)))
    assert torch.equal(whole, written(slice(10, 40), slice(0, 10)))
    halves = whole.view(4, 2, 2 * page, wide)
    assert torch.equal(halves[3, 1, page:], values[:page, 1])
    assert torch.equal(halves[3, 1, :page].reshape(wide, page), keys[:page, 1].T)
    assert not whole[[0, 2]].any()
