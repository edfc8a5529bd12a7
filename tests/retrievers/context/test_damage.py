"""Whatever happens to the files: a miss with its reason or an error, and never a number that was not written."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rag.core.errors import CorpusDamaged, CorpusMismatch, GraftError
from retrievers.context.build import build
from retrievers.context.encoded import Encoded
from retrievers.context.manifest import digest
from retrievers.context.store import ContextStore, Miss
from tests.retrievers.context.fake import MODEL, FakeEncoder, built, contexts, halved, same

COUNT = 12


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "store"
    built(path, COUNT)
    return path


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "store")
    return tmp_path / "store"


def read(path: Path, ram_bytes: int = 0) -> list[Miss]:
    """Ask for every passage; all that comes is right. Returns the misses."""
    found = ContextStore(path, MODEL, ram_bytes=ram_bytes).get(*zip(*contexts(COUNT), strict=True))
    for one, (_, text) in zip(found, contexts(COUNT), strict=True):
        assert isinstance(one, Miss) or same(one, halved(text))
    return [one for one in found if isinstance(one, Miss)]


def tensors(path: Path) -> Path:
    return path / "segments" / "000002" / "contexts.safetensors"


def members(path: Path) -> set[str]:
    return {entry["id"] for entry in json.loads((path / "segments" / "000002" / "index.json").read_text())}


def resign(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest as somebody would who knows how its checksum is made."""
    file = path / "manifest.json"
    document = json.loads(file.read_text())
    change(document["manifest"])
    document["sha256"] = digest(document["manifest"])
    file.write_text(json.dumps(document))


def test_any_flipped_bit_is_found_and_never_served(path: Path) -> None:
    """In every file but the manifest, at random places and at both ends."""
    moments, rounds = random.Random(3), 0
    for file in (tensors(path), tensors(path).with_name("index.json")):
        whole = file.read_bytes()
        for at in [0, 7, 8, 20, len(whole) - 1, *(moments.randrange(len(whole)) for _ in range(60))]:
            broken = bytearray(whole)
            broken[at] ^= 1 << moments.randrange(8)
            file.write_bytes(bytes(broken))
            damage = ContextStore(path, ram_bytes=0).verify()
            assert damage, f"byte {at} of {file.name}"
            assert {found.segment for found in damage} == {"000002"}
            misses = read(path)
            assert {miss.id for miss in misses} <= members_of(path, whole, file)
            assert {found.id for found in damage} - {""} <= {miss.id for miss in misses}
            assert all(miss.reason == "damaged" for miss in misses)
            rounds += 1
        file.write_bytes(whole)
    assert rounds > 100
    assert read(path) == []


def members_of(path: Path, whole: bytes, file: Path) -> set[str]:
    index = whole if file.name == "index.json" else file.with_name("index.json").read_bytes()
    return {entry["id"] for entry in json.loads(index)}


def test_a_flipped_bit_in_a_passage_concerns_that_passage_only(path: Path) -> None:
    store = ContextStore(path)
    segment = store.state().segments["000002"]
    assert len(segment.entries) > 1
    victim = segment.load(1)["values"].numpy().tobytes()
    data = bytearray(tensors(path).read_bytes())
    data[data.index(victim) + 5] ^= 64
    tensors(path).write_bytes(bytes(data))
    (damage,) = ContextStore(path).verify()
    assert (damage.segment, damage.id) == ("000002", segment.entries[1].id)
    (miss,) = read(path)
    assert (miss.id, miss.reason) == (segment.entries[1].id, "damaged")
    assert "checksum" in miss.detail


def test_damage_under_an_open_store_is_a_miss(path: Path) -> None:
    store = ContextStore(path, MODEL, ram_bytes=0)
    pairs = [(id, text) for id, text in contexts(COUNT) if id in members(path)]
    assert all(isinstance(one, Encoded) for one in store.get(*zip(*pairs, strict=True)))
    tensors(path).write_bytes(tensors(path).read_bytes()[:-100])  # a map of what was cut off would end the process
    found = store.get(*zip(*pairs, strict=True))
    assert [one.reason for one in found if isinstance(one, Miss)] == ["damaged"] * len(pairs)


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_a_miss(path: Path, size: int) -> None:
    tensors(path).write_bytes(tensors(path).read_bytes()[:size])
    misses = read(path, ram_bytes=1 << 20)
    assert {miss.id for miss in misses} == members(path)
    assert all("bytes where the manifest says" in miss.detail for miss in misses)
    assert {found.id for found in ContextStore(path).verify()} == members(path)


@pytest.mark.parametrize("name", ["contexts.safetensors", "index.json", ""])
def test_a_missing_file_is_a_miss(path: Path, name: str) -> None:
    lost = members(path)
    target = tensors(path).parent / name
    target.unlink() if name else shutil.rmtree(target)
    misses = read(path)
    assert ({miss.id for miss in misses}, {miss.reason for miss in misses}) == (lost, {"damaged"})
    assert ContextStore(path).verify()
    unreadable = ContextStore(path).info()["unreadable_segments"]
    assert list(unreadable) == ([] if name == "contexts.safetensors" else ["000002"])


def swapped(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**content, "0.keys": content["0.values"], "0.values": content["0.keys"]}


LIES: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "swapped": swapped,
    "type": lambda content: {**content, "0.keys": content["0.keys"].view(torch.int16)},
    "shape": lambda content: {**content, "0.keys": content["0.keys"].transpose(0, 1).contiguous()},
    "flat": lambda content: {**content, "0.keys": content["0.keys"].reshape(-1)},
    "renamed": lambda content: {"other" + name if name == "0.keys" else name: tensor for name, tensor in content.items()},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_a_miss(path: Path, lie: str) -> None:
    """The file is a sound safetensors file, and the manifest was made to agree with its size."""
    save_file(LIES[lie](load_file(tensors(path))), tensors(path))
    resign(path, lambda manifest: manifest["segments"][1]["files"]["contexts.safetensors"].update(bytes=tensors(path).stat().st_size))
    first = ContextStore(path).state().segments["000002"].entries[0].id
    assert [miss.id for miss in read(path)] == [first]
    assert first in {found.id for found in ContextStore(path).verify()}


@pytest.mark.parametrize("length", [2**63, 2**40, 10**7, 0])
def test_a_header_longer_than_its_file_is_a_miss(path: Path, length: int) -> None:
    data = tensors(path).read_bytes()
    tensors(path).write_bytes(length.to_bytes(8, "little") + data[8:])
    assert {miss.id for miss in read(path)} == members(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest["segments"][1].update(name="../000001"), "name"),
        (lambda manifest: manifest["segments"][1].update(name="/tmp/000001"), "name"),
        (lambda manifest: manifest["segments"][1].update(name="000001"), "names a segment twice"),
        (lambda manifest: manifest["segments"][1].update(passages=-1), "passages"),
        (lambda manifest: manifest["segments"][1]["files"].update({"../x": {"bytes": 1, "sha256": "0"}}), "files"),
        (lambda manifest: manifest.update(numbers="float8"), "numbers"),
        (lambda manifest: manifest.pop("model"), "model"),
        (lambda manifest: manifest["model"].update(layers="three"), "layers"),
    ],
)
def test_a_manifest_of_nonsense_is_refused(path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    resign(path, change)
    with pytest.raises(CorpusDamaged, match=message):
        ContextStore(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"format": 1, "sha256": "", "manifest": 7}'])
def test_a_manifest_that_is_none_is_refused(path: Path, content: bytes) -> None:
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(CorpusDamaged, match=r"manifest\.json"):
        ContextStore(path)


def test_any_digit_that_changes_in_the_manifest_is_found(path: Path) -> None:
    file = path / "manifest.json"
    text = file.read_text()
    places = [at for at, letter in enumerate(text) if letter.isalnum()]
    for at in random.Random(5).sample(places, 200):
        file.write_text(text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :])
        with pytest.raises(GraftError):
            ContextStore(path)


def test_another_format_version_is_refused(path: Path) -> None:
    document = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**document, "format": 2}))
    with pytest.raises(CorpusMismatch, match="format version 2, but this release of graft reads 1"):
        ContextStore(path)


def test_numbers_of_another_format_are_a_miss_and_not_misread(path: Path) -> None:
    resign(path, lambda manifest: manifest.update(numbers="int8"))
    assert len(read(path)) == COUNT


def test_numbers_of_another_geometry_are_a_miss_and_not_misread(path: Path) -> None:
    resign(path, lambda manifest: manifest["model"].update(heads=4, head_dim=4))
    store = ContextStore(path)
    assert all(isinstance(one, Miss) for one in store.get(*zip(*contexts(COUNT), strict=True)))


@pytest.mark.parametrize("how", ["bit", "missing", "index", "header"])
def test_repair_encodes_anew_what_is_damaged(path: Path, how: str) -> None:
    lost, data = members(path), bytearray(tensors(path).read_bytes())
    if how == "bit":
        data[-1] ^= 1
        tensors(path).write_bytes(bytes(data))
        lost = {found.id for found in ContextStore(path).verify()}
        assert len(lost) == 1
    elif how == "header":
        end = 8 + int.from_bytes(data[:8], "little")
        at = data.index(b"}}", 0, end) + 2  # blanks behind the header, that no passage needs
        assert data[at:end].strip() == b"", "every change of the layout needs another victim here"
        data[at] = 9
        tensors(path).write_bytes(bytes(data))
        lost = set()
    else:
        target = tensors(path) if how == "missing" else tensors(path).with_name("index.json")
        target.unlink()
    encoder = FakeEncoder()
    build(path, contexts(COUNT), encoder, repair=True)
    assert set(encoder.seen) - {text for id, text in contexts(COUNT) if id in lost} <= set(encoder.seen[:8])
    store = ContextStore(path)
    assert (store.verify(), read(path), len(store)) == ([], [], COUNT)
    assert sorted(found.name for found in (path / "segments").iterdir()) == sorted(store.state().segments)


def test_without_repair_a_build_leaves_sound_passages_alone(path: Path) -> None:
    data = bytearray(tensors(path).read_bytes())
    data[-1] ^= 1
    tensors(path).write_bytes(bytes(data))
    assert built(path, COUNT).encoded == 0
    assert len(read(path)) == 1
