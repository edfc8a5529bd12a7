from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rag.core.errors import CorpusMismatch, CorpusNotFound, InputError, ModelError
from retrievers.context.build import build
from retrievers.context.encoded import Encoded
from retrievers.context.store import ContextStore, Miss
from retrievers.context.tiers import Tier
from tests.retrievers.context.fake import MODEL, FakeEncoder, built, contexts, halved, same


@pytest.fixture
def path(tmp_path: Path) -> Path:
    built(tmp_path / "store")
    return tmp_path / "store"


def pairs(count: int, version: int = 0) -> tuple[list[str], list[str]]:
    both = contexts(count, version)
    return [id for id, _ in both], [text for _, text in both]


def hit(found: Encoded | Miss) -> Encoded:
    assert isinstance(found, Encoded), found
    return found


def test_what_was_encoded_comes_back_in_order(path: Path) -> None:
    store = ContextStore(path, MODEL)
    ids, texts = pairs(12)
    found = store.get(ids[::-1], texts[::-1])
    assert all(same(hit(one), halved(text)) for one, text in zip(found, texts[::-1], strict=True))
    assert len(store) == 12
    assert store.info()["segments"] > 3


def test_a_store_without_room_in_ram_reads_the_disk_each_time(path: Path) -> None:
    store = ContextStore(path, MODEL, ram_bytes=0)
    ids, texts = pairs(3)
    for _ in range(2):
        assert all(same(hit(one), halved(text)) for one, text in zip(store.get(ids, texts), texts, strict=True))
    assert store.loads == 6


def test_a_warm_passage_needs_no_disk(path: Path) -> None:
    store = ContextStore(path, MODEL)
    store.get(*pairs(5))
    shutil.rmtree(path)
    ids, texts = pairs(6)
    found = store.get(ids, texts)
    assert all(same(hit(one), halved(text)) for one, text in zip(found[:5], texts, strict=False))
    assert isinstance(found[5], Miss)
    assert found[5].reason == "damaged"
    assert (store.loads, store.ram.hits) == (5, 5)


def test_absent_and_changed_are_told_apart(path: Path) -> None:
    store = ContextStore(path, MODEL)
    assert store.get(["p001"], [contexts(2)[1][1]]) != []
    assert store.get(["p001", "p999"], ["another text", "x"]) == [Miss("p001", "changed"), Miss("p999", "absent")]


def test_a_freshly_encoded_passage_is_kept_in_memory(path: Path) -> None:
    store, fresh = ContextStore(path, MODEL), FakeEncoder().one("a new text")
    store.keep("new", "a new text", fresh, seconds=0.5)
    assert same(hit(store.get(["new"], ["a new text"])[0]), halved("a new text"))
    assert store.get(["new"], ["a newer text"]) == [Miss("new", "absent")]
    with pytest.raises(ModelError, match=r"shape \(3, 2, 2, 8\)"):
        store.keep("new", "x", Encoded((1, 2, 3), fresh.keys[:, :, :2], fresh.values), 1.0)


def test_the_numbers_come_in_the_type_that_was_asked_for(path: Path) -> None:
    found = hit(ContextStore(path, MODEL, dtype=torch.float64).get(*pairs(1))[0])
    assert found.keys.dtype == found.values.dtype == torch.float64


@pytest.mark.parametrize(
    "change", [{"weights": "other"}, {"tokenizer": "other"}, {"adapter": "worn"}, {"rotary": "interleaved:8:abc"}, {"layers": 4}]
)
def test_a_store_of_another_model_is_refused(path: Path, change: dict[str, object]) -> None:
    with pytest.raises(CorpusMismatch, match=f"encoded by another model .*{next(iter(change))}"):
        ContextStore(path, replace(MODEL, **change))  # type: ignore[arg-type]


def test_no_store_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFound, match="rag contexts build"):
        ContextStore(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusNotFound):
        ContextStore(tmp_path / "file")


def test_ids_and_texts_must_match(path: Path) -> None:
    with pytest.raises(InputError, match="2 ids and 1 texts"):
        ContextStore(path).get(["a", "b"], ["x"])


def test_a_reader_sees_what_is_committed_after_it_opened(path: Path) -> None:
    store = ContextStore(path, MODEL)
    build(path, [("late", "a late passage")], FakeEncoder())
    assert same(hit(store.get(["late"], ["a late passage"])[0]), halved("a late passage"))


def test_a_reader_follows_when_segments_are_taken_away(path: Path) -> None:
    store = ContextStore(path, MODEL)
    before = store.state()
    build(path, contexts(12, version=1)[::2] + contexts(12)[1::2], FakeEncoder(), prune=True)
    assert store._moved_on(before)
    ids, texts = pairs(12)
    found = store.get(ids, texts)
    assert [isinstance(one, Encoded) for one in found] == [False, True] * 6
    assert {one.reason for one in found if isinstance(one, Miss)} == {"changed"}


def test_a_reader_in_the_middle_of_a_rewrite_loads_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segment goes away between the look at the index and the load."""
    store = ContextStore(path, MODEL)
    segment = next(segment for segment in store.state().segments.values() if len(segment.entries) > 1)
    gone, id = (entry.id for entry in segment.entries[:2])
    text, real = dict(contexts(12))[id], type(segment).load

    def load(self: object, row: int) -> object:
        monkeypatch.undo()
        build(path, [pair for pair in contexts(12) if pair[0] != gone], FakeEncoder(), prune=True)
        assert not segment.folder.exists()
        return real(self, row)  # type: ignore[arg-type]

    monkeypatch.setattr(type(segment), "load", load)
    assert same(hit(store.get([id], [text])[0]), halved(text))


def test_a_store_that_is_replaced_by_one_of_another_format_is_not_misread(path: Path) -> None:
    store = ContextStore(path, MODEL, ram_bytes=0)
    shutil.rmtree(path)
    built(path, numbers="int8")
    found = store.get(*pairs(1))[0]
    assert isinstance(found, Miss)
    assert "int8 now" in found.detail


def test_threads_share_a_store(path: Path) -> None:
    store = ContextStore(path, MODEL, ram_bytes=8_000)  # a few passages: there is always somebody leaving
    ids, texts = pairs(12)
    failures: list[BaseException] = []

    def work(step: int) -> None:
        try:
            for number in range(60):
                at = number * step % 12
                assert same(hit(store.get([ids[at]], [texts[at]])[0]), halved(texts[at]))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert store.ram.evictions > 0


def test_a_tier_above_takes_what_the_one_below_has(path: Path) -> None:
    """What a GPU does, with a second tier on the CPU."""
    store = ContextStore(path, MODEL, device="cpu", device_bytes=1 << 20)
    ids, texts = pairs(2)
    for _ in range(3):
        store.get(ids, texts)
    top = store.tiers[0]
    assert (top.name, top.hits, store.ram.hits, store.loads) == ("device", 4, 0, 2)
    store.tiers[0] = Tier("device", 1 << 20)  # as if it had been emptied
    assert all(same(hit(one), halved(text)) for one, text in zip(store.get(ids, texts), texts, strict=True))
    assert (len(store.tiers[0]), store.ram.hits, store.loads) == (2, 2, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_what_it_has_room_for(path: Path) -> None:
    store = ContextStore(path, MODEL, device="cuda", device_bytes=4_000)
    ids, texts = pairs(12)
    for _ in range(2):
        for one, text in zip(store.get(ids, texts), texts, strict=True):
            assert hit(one).keys.device.type == "cuda"
            assert torch.equal(hit(one).keys.cpu(), halved(text).keys)
    assert 0 < store.tiers[0].bytes <= 4_000
    assert store.loads == 12
