from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from rag.core.errors import CorpusDamaged, CorpusError, CorpusLocked, CorpusMismatch, InputError, ModelError
from retrievers.context.build import Built, ContextEncoder, Plan, Tokenises, build
from retrievers.context.encoded import Encoded
from retrievers.context.numbers import FORMATS, number_format
from retrievers.context.store import ContextStore
from retrievers.corpus import durable
from tests.retrievers.context.fake import MODEL, OTHER, CountingEncoder, FakeEncoder, built, contexts, halved, same


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "segments").iterdir())


def test_the_encoders_are_what_they_say() -> None:
    assert isinstance(FakeEncoder(), ContextEncoder)
    assert isinstance(CountingEncoder(), Tokenises)
    assert not isinstance(FakeEncoder(), Tokenises)


@pytest.mark.parametrize("numbers", FORMATS)
def test_the_plan_is_told_before_a_byte_is_written_and_holds(tmp_path: Path, numbers: str) -> None:
    plans: list[Plan] = []

    def announce(plan: Plan) -> None:
        assert not (tmp_path / "store").exists()
        plans.append(plan)

    build(tmp_path / "store", contexts(9), CountingEncoder(), numbers, announce=announce)
    (plan,) = plans
    store = ContextStore(tmp_path / "store")
    loaded = [segment.load(row) for segment in store.state().segments.values() for row in range(len(segment.entries))]
    assert plan.exact
    assert plan.bytes == sum(tensor.nbytes for packed in loaded for tensor in packed.values())
    assert plan.tokens == store.info()["tokens"] == sum(len(text.split()) for _, text in contexts(9))
    assert plan.bytes < store.info()["bytes"] <= plan.room


def test_without_a_tokenizer_the_size_is_estimated(tmp_path: Path) -> None:
    plans: list[Plan] = []
    build(tmp_path / "store", contexts(40), FakeEncoder(), announce=plans.append)
    assert not plans[0].exact
    assert plans[0].tokens == pytest.approx(ContextStore(tmp_path / "store").info()["tokens"], rel=0.1)


def test_no_room_is_an_error_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = []
    build(tmp_path / "measured", contexts(9), CountingEncoder(), announce=lambda plan: room.append(plan.room))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=room[0] - 1))
    encoder = CountingEncoder()
    with pytest.raises(CorpusError, match=r"bytes are needed and .* are free"):
        build(tmp_path / "deep" / "store", contexts(9), encoder)
    assert not (tmp_path / "deep").exists()
    assert encoder.seen == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=room[0]))
    build(tmp_path / "deep" / "store", contexts(9), encoder)


def test_a_disk_that_fills_up_keeps_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = durable.write, [0]

    def write(path: Path, data: bytes) -> None:
        count[0] += path.name.endswith("safetensors")
        if count[0] > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(durable, "write", write)
    with pytest.raises(CorpusError, match="the disk is full"):
        built(tmp_path / "store")
    monkeypatch.undo()
    store = ContextStore(tmp_path / "store")
    assert 0 < len(store) < 12
    assert segments(tmp_path / "store") == ["000001", "000002"]
    assert store.verify() == []
    left = 12 - len(store)
    assert built(tmp_path / "store").encoded == left


def test_a_second_build_encodes_what_is_new_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert built(path) == Built(encoded=12, kept=0, removed=0)
    before = files(path / "segments")
    assert built(path) == Built(encoded=0, kept=12, removed=0)
    assert files(path / "segments") == before
    encoder = FakeEncoder()
    wanted = contexts(12)[:3] + contexts(14, version=1)[3:]
    assert build(path, wanted, encoder, segment_bytes=10_000) == Built(encoded=11, kept=3, removed=9)
    assert not {text for _, text in contexts(3)} & set(encoder.seen)
    found = ContextStore(path, MODEL).get([id for id, _ in wanted], [text for _, text in wanted])
    assert all(isinstance(one, Encoded) and same(one, halved(text)) for one, (_, text) in zip(found, wanted, strict=True))


def test_what_is_gone_leaves_no_trace(tmp_path: Path) -> None:
    path, secret = tmp_path / "store", "a secret of thirteen words " + "s " * 8
    build(path, [*contexts(12), ("secret-passage", secret)], FakeEncoder(), segment_bytes=10_000)
    bytes_of_it = number_format("float16").pack(FakeEncoder().one(secret))[0]["keys"].numpy().tobytes()[:400]
    assert any(bytes_of_it in content for content in files(path).values())
    kept = build(path, contexts(12), FakeEncoder(), segment_bytes=10_000)
    assert (kept.removed, len(ContextStore(path))) == (0, 13)  # without prune a part of a corpus may be built
    assert build(path, contexts(12), FakeEncoder(), prune=True) == Built(encoded=0, kept=12, removed=1)
    assert not any(bytes_of_it in content or b"secret-passage" in content for content in files(path).values())
    store = ContextStore(path)
    assert (len(store), store.verify()) == (12, [])
    assert segments(path) == sorted(store.state().segments)


def test_the_manifest_says_whose_numbers_they_are_and_what_they_cost(tmp_path: Path) -> None:
    built(tmp_path / "store", numbers="int4")
    document = json.loads((tmp_path / "store" / "manifest.json").read_text())
    manifest, info = document["manifest"], ContextStore(tmp_path / "store").info()
    assert (document["format"], manifest["model"], manifest["numbers"]) == (1, asdict(MODEL), "int4")
    form, sums = number_format("int4"), [0.0] * 4
    for _, text in contexts(12):
        _, deviation = form.pack(FakeEncoder().one(text))
        sums = [old + new for old, new in zip(sums, asdict(deviation).values(), strict=True)]
    assert info["error_keys"] == pytest.approx((sums[0] / sums[1]) ** 0.5)
    assert info["error_values"] == pytest.approx((sums[2] / sums[3]) ** 0.5)
    assert info["complete"]


def test_the_fingerprint_is_of_the_corpus_and_only_of_a_whole_build(tmp_path: Path) -> None:
    def fingerprint(name: str, pairs: list[tuple[str, str]]) -> str:
        build(tmp_path / name, pairs, FakeEncoder())
        return str(ContextStore(tmp_path / name).info()["corpus"])

    first = fingerprint("a", contexts(4))
    assert first == fingerprint("b", contexts(4)[::-1])
    assert first != fingerprint("c", contexts(4, version=1))
    assert first != fingerprint("a", contexts(5))

    class Stops(FakeEncoder):
        def encode(self, texts: Sequence[str]) -> list[Encoded]:
            if len(self.seen) > 20:
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "a", contexts(40), Stops(), segment_bytes=5_000)
    info = ContextStore(tmp_path / "a").info()
    assert (info["complete"], 5 < info["passages"] < 40) == (False, True)


def test_one_writes_at_a_time(tmp_path: Path) -> None:
    built(tmp_path / "store")
    with FileLock(tmp_path / "store" / "contexts.lock"), pytest.raises(CorpusLocked, match="is writing to this store"):
        built(tmp_path / "store", count=13)
    assert built(tmp_path / "store", count=13).encoded == 1


def test_another_model_or_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store"
    built(path, numbers="int8")
    before = files(path)
    with pytest.raises(CorpusMismatch, match="encoded by another model"):
        build(path, contexts(3), FakeEncoder(OTHER))
    with pytest.raises(CorpusMismatch, match="this store is int8, not float16"):
        built(path, numbers="float16")
    with pytest.raises(InputError, match="no number format"):
        built(path, numbers="float8")
    assert files(path) == before
    assert built(path, count=13).encoded == 1
    assert ContextStore(path).numbers.name == "int8"


def test_two_builds_that_both_find_no_store_do_not_mix(tmp_path: Path) -> None:
    """The second gets the lock when the first has made the store."""

    def overtaken_by(name: str, numbers: str) -> Callable[[Plan], None]:
        def announce(_: Plan) -> None:
            built(tmp_path / name, numbers=numbers)

        return announce

    with pytest.raises(CorpusMismatch, match="this store is int8, not float16"):
        build(tmp_path / "a", contexts(12), FakeEncoder(), announce=overtaken_by("a", "int8"))
    with pytest.raises(CorpusMismatch, match="encoded by another model"):
        build(tmp_path / "b", contexts(12), FakeEncoder(OTHER), announce=overtaken_by("b", "float16"))
    encoder = CountingEncoder()
    assert build(tmp_path / "c", contexts(12), encoder, announce=overtaken_by("c", "float16")).encoded == 0
    assert encoder.seen == []


def test_damage_met_while_rewriting_leaves_the_build_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "store"
    built(path)
    segment = next(segment for segment in ContextStore(path).state().segments.values() if len(segment.entries) > 1)
    gone, lost = (entry.id for entry in segment.entries[:2])
    data = bytearray((segment.folder / "contexts.safetensors").read_bytes())
    data[data.index(segment.load(1)["keys"].numpy().tobytes())] ^= 1
    (segment.folder / "contexts.safetensors").write_bytes(bytes(data))
    wanted = [pair for pair in contexts(12) if pair[0] != gone]
    assert build(path, wanted, FakeEncoder(), prune=True).removed == 2
    store = ContextStore(path)
    assert (lost in store.hashes(), store.info()["complete"], store.verify()) == (False, False, [])
    assert build(path, wanted, FakeEncoder(), prune=True).encoded == 1
    assert ContextStore(path).info()["complete"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "there are no passages"),
        ([("a", " \n")], "passage 'a' has no text"),
        ([("", "x")], "an id that is not empty"),
        ([(7, "x")], "an id that is not empty"),
        ([("a\0", "x")], "NUL character"),
        ([("a", "\ud800")], "half of a surrogate pair"),
        ([("a", "x"), ("b", "y"), ("a", "z")], "two passages are called 'a'"),
    ],
)
def test_bad_contexts_are_refused_before_anything_is_written(tmp_path: Path, pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(tmp_path / "store", pairs, FakeEncoder())
    assert not (tmp_path / "store").exists()


def test_ids_are_data_and_never_paths(tmp_path: Path) -> None:
    path = tmp_path / "in" / "store"
    path.parent.mkdir()
    ids = ["../../etc/passwd", "/tmp/x", "a/b", "a\\b", "A", "a", "\u00e9", "e\u0301", "con", ".", "0.keys", "__metadata__", "x" * 3000]
    pairs = [(id, f"text number {number}") for number, id in enumerate(ids)]
    build(path, pairs, FakeEncoder(), segment_bytes=2_000)
    assert {found.name for found in tmp_path.rglob("*") if found.is_file()} == {
        "manifest.json", "contexts.lock", "contexts.safetensors", "index.json",
    }  # fmt: skip
    assert [found.name for found in path.parent.iterdir()] == ["store"]
    store = ContextStore(path)
    found = store.get(ids, [text for _, text in pairs])
    assert all(isinstance(one, Encoded) and same(one, halved(text)) for one, (_, text) in zip(found, pairs, strict=True))
    assert store.verify() == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"something else here \('thesis.tex'\)"):
        built(tmp_path)
    with pytest.raises(InputError, match="there is a file here"):
        built(tmp_path / "thesis.tex")
    built(tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    with pytest.raises(CorpusDamaged, match="segments and no manifest"):
        built(tmp_path / "store")
    assert segments(tmp_path / "store")


class Wrong(FakeEncoder):
    """Returns one passage too few, or the wrong shape."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        made = super().encode(texts)
        if self.how == "few":
            return made[:-1]
        first = made[0]
        keys = {"shape": first.keys[:2], "nan": first.keys * torch.nan, "tokens": first.keys}[self.how]
        tokens = () if self.how == "tokens" else first.tokens
        return [Encoded(tokens, keys, first.values), *made[1:]]


@pytest.mark.parametrize(("how", "message"), [("few", "for .* texts"), ("shape", "shape"), ("nan", "not finite"), ("tokens", "shape")])
def test_what_an_encoder_must_not_return_is_never_stored(tmp_path: Path, how: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(tmp_path / "store", contexts(5), Wrong(how))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_bad_sizes_are_refused(tmp_path: Path) -> None:
    for options in ({"batch": 0}, {"segment_bytes": 0}):
        with pytest.raises(InputError, match="must be 1 or more"):
            build(tmp_path / "store", contexts(5), FakeEncoder(), **options)  # type: ignore[arg-type]


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build(tmp_path / "store", contexts(10), FakeEncoder(), batch=4, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]
