from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from generators.passages import passage_data
from rag.cli.contexts import make_encoder
from retrievers.context.build import Tokenises
from retrievers.context.encoded import Encoded
from retrievers.context.store import ContextStore
from retrievers.corpus import Corpus
from tests.rag.cli.conftest import Rag
from tests.retrievers.context.fake import MODEL, OTHER, CountingEncoder, FakeEncoder, same


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    """Takes the place of the model."""
    made = CountingEncoder()
    monkeypatch.setattr("rag.cli.contexts.make_encoder", lambda *_: made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "contexts"


def account(rag: Rag, *arguments: str | Path) -> dict[str, Any]:
    result = rag("contexts", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def break_one(store: Path) -> str:
    """Flip a bit of a passage; return its id."""
    opened = ContextStore(store)
    (name, segment), *_ = opened.state().segments.items()
    file = store / "segments" / name / "contexts.safetensors"
    data = bytearray(file.read_bytes())
    data[data.index(segment.load(0)["keys"].numpy().tobytes())] ^= 1
    file.write_bytes(bytes(data))
    return segment.entries[0].id


def test_build_tells_the_size_first_and_stores_what_the_model_will_read(
    rag: Rag, shelf: Path, store: Path, encoder: CountingEncoder
) -> None:
    result = rag("contexts", "build", shelf, "--store", store, "--model", "smollm2", "--format", "int8")
    assert result.exit_code == 0, result.output
    passages = list(Corpus.open(shelf).each_passage())
    tokens = sum(len(passage_data(passage).split()) for passage in passages)
    assert f"{len(passages)} of {len(passages)} passages are to be encoded: {tokens} tokens, " in result.stderr
    assert f"{len(passages)} passages encoded, 0 were there, 0 taken away" in result.stdout
    opened = ContextStore(store, MODEL)
    found = opened.get([passage.id for passage in passages], [passage_data(passage) for passage in passages])
    assert all(isinstance(one, Encoded) for one in found)
    assert opened.numbers.name == "int8"


def test_build_follows_the_corpus(rag: Rag, docs: Path, shelf: Path, store: Path, encoder: CountingEncoder) -> None:
    first = account(rag, "build", shelf, "--store", store)
    assert (first["encoded"], first["kept"], first["format"], first["complete"]) == (first["passages"], 0, "float16", True)
    (docs / "travel.md").unlink()
    (docs / "safety" / "suits.md").write_text("# Suits\n\nA suit may be worn outside for two hours.\n")
    assert rag("index", docs, "--out", shelf, "--prune").exit_code == 0
    second = account(rag, "build", shelf, "--store", store)
    assert second["passages"] == len(Corpus.open(shelf)) < first["passages"]
    assert second["corpus"] != first["corpus"]
    text = "".join(str(file.read_bytes()) for file in store.rglob("*.json"))
    assert "travel" not in text
    assert account(rag, "build", shelf, "--store", store)["encoded"] == 0


def test_show_names_model_format_and_error(rag: Rag, shelf: Path, store: Path, encoder: CountingEncoder) -> None:
    account(rag, "build", shelf, "--store", store, "--format", "int4")
    shown, info = rag("contexts", "show", store), account(rag, "show", store)
    assert shown.exit_code == 0
    assert f"format: int4, relative error of keys {info['error_keys']:.2%}, of values {info['error_values']:.2%}" in shown.stdout
    assert 0.005 < info["error_values"] < 0.2
    assert f"weights {'w' * 16}, tokenizer {'t' * 16}, adapter none, 3 layers of 2 × 8, rotary half:8:abc" in shown.stdout
    assert "build: whole" in shown.stdout
    assert info["bytes"] == sum(file.stat().st_size for file in (store / "segments").rglob("*") if file.is_file())


def test_verify_names_every_damaged_entry_and_exits_with_1(rag: Rag, shelf: Path, store: Path, encoder: CountingEncoder) -> None:
    account(rag, "build", shelf, "--store", store)
    sound = rag("contexts", "verify", store)
    assert (sound.exit_code, sound.stdout) == (0, f"{len(Corpus.open(shelf))} passages: every checksum agrees\n")
    broken = break_one(store)
    found = rag("contexts", "verify", store)
    assert found.exit_code == 1
    assert f"damaged: segment 000001, passage {broken!r}: " in found.stdout
    assert found.stdout.count("damaged: ") == 1
    listed = rag("contexts", "verify", store, "--json")
    assert listed.exit_code == 1
    assert [row["passage"] for row in json.loads(listed.stdout)["damaged"]] == [broken]
    assert account(rag, "build", shelf, "--store", store, "--repair")["encoded"] == 1
    assert rag("contexts", "verify", store).exit_code == 0


def test_show_names_a_segment_that_cannot_be_read(rag: Rag, shelf: Path, store: Path, encoder: CountingEncoder) -> None:
    account(rag, "build", shelf, "--store", store)
    shutil.rmtree(store / "segments" / "000001")
    shown = rag("contexts", "show", store)
    assert (shown.exit_code, "unreadable: segment 000001: " in shown.stdout) == (0, True)
    verified = rag("contexts", "verify", store)
    assert (verified.exit_code, "damaged: segment 000001, as a whole: " in verified.stdout) == (1, True)


def test_no_room_is_an_error_before_the_store_exists(
    rag: Rag, shelf: Path, store: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    result = rag("contexts", "build", shelf, "--store", store)
    assert result.exit_code == 2
    assert "passages are to be encoded" in result.stderr  # the size is told all the same
    assert "100 are free there" in result.stderr
    assert (store.exists(), encoder.seen) == (False, [])


def test_ctrl_c_says_that_the_same_command_resumes(
    rag: Rag, shelf: Path, store: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(texts: Sequence[str]) -> list[Encoded]:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "encode", interrupted)
    result = rag("contexts", "build", shelf, "--store", store)
    assert result.exit_code == 130
    assert "run the same command to resume" in result.stderr
    assert "build: not finished" in rag("contexts", "show", store).stdout
    monkeypatch.undo()
    monkeypatch.setattr("rag.cli.contexts.make_encoder", lambda *_: FakeEncoder())
    assert account(rag, "build", shelf, "--store", store)["encoded"] == len(Corpus.open(shelf))


def test_bad_calls_exit_with_2_and_say_why(
    rag: Rag, shelf: Path, store: Path, tmp_path: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("show", "verify"):
        missing = rag("contexts", command, tmp_path / "nowhere")
        assert (missing.exit_code, "there is no store of contexts here" in missing.stderr) == (2, True)
    none = rag("contexts", "build", tmp_path / "nowhere", "--store", store)
    assert (none.exit_code, "there is no corpus here" in none.stderr) == (2, True)
    inside = rag("contexts", "build", shelf, "--store", shelf)
    assert (inside.exit_code, "there is something else here" in inside.stderr) == (2, True)
    account(rag, "build", shelf, "--store", store)
    other = rag("contexts", "build", shelf, "--store", store, "--format", "int4")
    assert (other.exit_code, "this store is float16, not int4" in other.stderr) == (2, True)
    monkeypatch.setattr("rag.cli.contexts.make_encoder", lambda *_: FakeEncoder(OTHER))
    stranger = rag("contexts", "build", shelf, "--store", store)
    assert (stranger.exit_code, "encoded by another model" in stranger.stderr) == (2, True)


def test_an_empty_corpus_is_an_error(rag: Rag, store: Path, tmp_path: Path, encoder: CountingEncoder) -> None:
    Corpus.create(tmp_path / "empty", encoder=None)
    result = rag("contexts", "build", tmp_path / "empty", "--store", store)
    assert (result.exit_code, "there are no passages to encode" in result.stderr) == (2, True)


def test_the_model_s_own_encoder_is_one() -> None:
    made = make_encoder("smollm2")  # loads nothing yet
    assert isinstance(made, Tokenises)
    assert {"identity", "encode"} <= set(dir(type(made)))


def test_what_is_kept_is_what_the_encoder_made(rag: Rag, shelf: Path, store: Path, encoder: CountingEncoder) -> None:
    account(rag, "build", shelf, "--store", store)
    passage = next(iter(Corpus.open(shelf).each_passage()))
    made = encoder.one(passage_data(passage))
    expected = Encoded(made.tokens, made.keys.half().float(), made.values.half().float())
    (found,) = ContextStore(store).get([passage.id], [passage_data(passage)])
    assert isinstance(found, Encoded)
    assert same(found, expected)
