from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from generators.models.vllm_contexts.claims import Block, Claim
from generators.models.vllm_contexts.served import Served
from generators.models.vllm_contexts.shelves import FIXED, Catalogue, Placed, Refused, Settings, Shelf, Shelves, settings_of
from rag.core.errors import ConfigError, CorpusMismatch, CorpusNotFound
from retrievers.context.build import build
from retrievers.context.encoded import token_hash
from retrievers.context.store import ContextStore, Miss
from tests.generators.models.vllm_contexts.conftest import BEFORE, FREQUENCIES, MODEL, TEXTS, WordEncoder, built, tokens_of
from tests.retrievers.context.fake import same

KEY = hashlib.sha256(b"the key").hexdigest()


def block(text: str) -> Block:
    return Block(0, len(text.split()), token_hash(tokens_of(text)))


def catalogue(served: Served, *stores: Path, **owned: Path) -> Catalogue:
    listed = [{"path": str(path)} for path in stores] + [{"path": str(path), "tenant": name} for name, path in owned.items()]
    return Catalogue(settings_of({"stores": listed, "tenants": dict.fromkeys(owned, KEY)}), Shelves(served, 1 << 20))


def file_of(store: Path, id: str) -> Path:
    segment, _ = ContextStore(store, ram_bytes=0).state().places[id]
    return segment.folder / "contexts.safetensors"


def refused(found: Catalogue, text: str, tenant: str | None = None, adapter: str | None = None) -> str:
    with pytest.raises(Refused) as raised:
        found.find(tenant, adapter, [block(text)])
    return raised.value.reason


def test_passages_and_fixed_blocks_are_found_by_their_tokens(served: Served, store: Path) -> None:
    found = catalogue(served, store)
    blocks = [block(BEFORE), block(TEXTS["b"]), block(TEXTS["a"])]
    assert found.find(None, None, blocks) == [Placed(one, str(store)) for one in blocks]
    assert refused(found, "one two four") == "absent"
    shelf = Shelf(store, served, 0)
    got = shelf.get(token_hash(tokens_of(TEXTS["c"])))
    assert not isinstance(got, Miss)
    assert same(got, WordEncoder().one(TEXTS["c"]))
    assert isinstance(shelf.get(token_hash([1])), Miss)


def test_a_store_of_an_earlier_version_opens_and_has_no_block(served: Served, store: Path, tmp_path: Path) -> None:
    old = built(tmp_path / "old", around=False)
    for index in old.glob("segments/*/index.json"):
        text = index.read_text()
        assert '"spelling"' in text
    import json

    from retrievers.context.manifest import read_manifest, write_manifest
    from retrievers.corpus.durable import sha256
    from retrievers.corpus.manifest import FileRecord

    manifest, segments = read_manifest(old), []
    for record in manifest.segments:  # as they were written before blocks were found by their tokens
        index = old / "segments" / record.name / "index.json"
        entries = [{name: value for name, value in entry.items() if name != "spelling"} for entry in json.loads(index.read_text())]
        index.write_text(json.dumps(entries))
        segments.append(replace(record, files={**record.files, "index.json": FileRecord(index.stat().st_size, sha256(index))}))
    write_manifest(old, replace(manifest, segments=tuple(segments)))
    opened = ContextStore(old)
    assert not isinstance(opened.get(["a"], [TEXTS["a"]])[0], Miss)
    assert refused(catalogue(served, old), TEXTS["a"]) == "absent"
    assert catalogue(served, old, store).find(None, None, [block(TEXTS["a"])]) == [Placed(block(TEXTS["a"]), str(store))]


@pytest.mark.parametrize("way", ["killed", "truncated", "flipped"])
def test_damage_is_told_before_anything_is_promised_and_after_it_was_sound(served: Served, store: Path, way: str) -> None:
    found = catalogue(served, store)
    found.find(None, None, [block(TEXTS["a"])])
    file = file_of(store, "a")
    if way == "killed":
        shutil.rmtree(file.parent)
    elif way == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        content = bytearray(file.read_bytes())
        content[-10] ^= 4
        file.write_bytes(content)
    for catalogued in (found, catalogue(served, store)):
        assert refused(catalogued, TEXTS["a"]) == "damaged"
        catalogued.find(None, None, [block(TEXTS["b"])])
    build(store, TEXTS.items(), WordEncoder(), repair=True)
    found.find(None, None, [block(TEXTS["a"])])


def test_what_was_sound_is_not_read_again_until_it_is_forgotten(served: Served, store: Path) -> None:
    found = catalogue(served, store)
    found.find(None, None, [block(TEXTS["a"])])
    file = file_of(store, "a")
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-10] ^= 4
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found.find(None, None, [block(TEXTS["a"])])
    found.forget()
    assert refused(found, TEXTS["a"]) == "damaged"


def test_a_damaged_copy_is_no_matter_where_another_store_is_sound(served: Served, store: Path, tmp_path: Path) -> None:
    other = built(tmp_path / "other")
    shutil.rmtree(file_of(store, "a").parent)
    assert catalogue(served, store, other).find(None, None, [block(TEXTS["a"])])[0].path == str(other)


def test_stores_are_kept_apart_by_adapter_and_tenant(served: Served, store: Path, tmp_path: Path) -> None:
    worn, red = built(tmp_path / "worn", adapter="x" * 64), built(tmp_path / "red", {"r": "red only"})
    found = catalogue(served, store, worn, red=red)
    assert found.find(None, "x" * 64, [block(TEXTS["a"])])[0].path == str(worn)
    assert found.find(None, None, [block(TEXTS["a"])])[0].path == str(store)
    assert found.find("red", None, [block("red only")])[0].path == str(red)
    assert refused(found, TEXTS["a"], adapter="y" * 64) == "adapter"
    assert refused(found, "red only") == "absent"
    assert refused(found, TEXTS["a"], tenant="red") == "absent"
    assert refused(found, "red only", tenant="red", adapter="x" * 64) == "adapter"


def test_a_tenant_is_admitted_by_its_key(served: Served, store: Path) -> None:
    found = catalogue(served, red=store)
    assert found.admitted(Claim(borders=[1]))
    assert found.admitted(Claim(borders=[1], tenant="red", key="the key"))
    for tenant, key in (("red", "another"), ("red", None), ("blue", "the key"), ("blue", None), ("red", KEY)):
        assert not found.admitted(Claim(borders=[1], tenant=tenant, key=key))


def test_a_store_that_is_not_there_yet_is_used_when_it_is(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "later"
    found = catalogue(served, path)
    (words,) = found.check_start()
    assert "there is no store of contexts here" in words
    assert refused(found, TEXTS["a"]) == "store"
    built(path)
    found.find(None, None, [block(TEXTS["a"])])


def test_passages_that_come_later_are_found(served: Served, store: Path) -> None:
    found = catalogue(served, store)
    assert refused(found, "quite new") == "absent"
    build(store, [*TEXTS.items(), ("n", "quite new")], WordEncoder())
    found.find(None, None, [block("quite new")])


@pytest.mark.parametrize("change", [{"weights": "v" * 64}, {"tokenizer": "v" * 64}, {"rotary": ""}, {"layers": 4}, {"head_dim": 16}])
def test_a_store_of_another_model_ends_the_start(served: Served, store: Path, change: dict[str, object]) -> None:
    import torch

    from generators.models.stitched.rotary import Frequencies

    other = Frequencies(torch.tensor([1.0, 0.5, 0.1, 0.01])) if "rotary" in change else FREQUENCIES
    another = Served(replace(served.identity, **change), other)  # type: ignore[arg-type]
    with pytest.raises(CorpusMismatch):
        catalogue(another, store).check_start()
    assert refused(catalogue(another, store), TEXTS["a"]) == "store"
    assert catalogue(served, store).check_start() == []
    assert served.rotary_of(MODEL, store).pairing == "half"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "stores"),
        ({"stores": []}, "stores"),
        ({"stores": [{"path": ""}]}, "stores.0.path"),
        ({"stores": [{"path": "s", "adapter": "a"}]}, "stores.0.adapter"),
        ({"stores": [{"path": "s"}], "tenants": {"red": "the key"}}, "tenants.red"),
        ({"stores": [{"path": "s", "tenant": "red"}]}, "tenant 'red'"),
        ({"stores": [{"path": "s"}], "ram_bytes": -1}, "ram_bytes"),
        (None, "kv_connector_extra_config"),
    ],
)
def test_wrong_settings_are_refused_by_name(given: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings_of(given)
    assert settings_of({"stores": [{"path": "s"}]}) == Settings.model_validate({"stores": [{"path": "s", "tenant": None}], "tenants": {}})


def test_a_store_without_fixed_blocks_is_a_shelf(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = built(tmp_path / "bare", around=False)
    assert not (bare / FIXED).exists()
    assert isinstance(Shelf(bare, served, 0).get(block(BEFORE).spelling), Miss)
    with pytest.raises(CorpusNotFound):
        Shelf(tmp_path / "none", served, 0)


def test_another_process_may_take_the_store_away(served: Served, store: Path, ask: Callable[..., object]) -> None:
    found = catalogue(served, store)
    found.find(None, None, [block(TEXTS["a"])])
    shutil.rmtree(store)
    assert refused(found, TEXTS["a"]) == "damaged"
