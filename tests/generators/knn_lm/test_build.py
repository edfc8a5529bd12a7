"""A build goes on where it was stopped and gives the same bytes; what cannot be built says why and writes nothing wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock

from generators.knn_lm import Datastore, Windows
from generators.knn_lm.manifest import Plan
from rag.core.errors import CorpusDamaged, CorpusError, CorpusLocked, CorpusMismatch, InputError, ModelError

pytest.importorskip("torch")
pytest.importorskip("faiss")
from tests.generators.knn_lm import tiny

WINDOWS = Windows(12, 8)
FILES = ("index.faiss", "tokens.npy", "manifest.json")


def build(folder: Path, **more: Any) -> Datastore:
    return Datastore.build(folder, tiny.decoder(), tiny.TEXTS, WINDOWS, batch=2, **more)


def held(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal counts every batch."""
    monkeypatch.setattr("generators.knn_lm.build._COMMIT", 1)


def test_nothing_but_the_datastore_is_left(tmp_path: Path) -> None:
    build(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} - {"datastore.lock"} == set(FILES)


@pytest.mark.usefixtures("often")
def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    store = build(tmp_path, progress=lambda *both: told.append(both))
    assert told[-1] == (len(store), len(store))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 3


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_stopped_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    from generators.knn_lm.decoder import Decoder

    build(tmp_path / "whole")
    read: list[int] = []
    keys = Decoder.keys

    def counted(self: Decoder, sequences: Any) -> Any:
        if len(read) == calls + 1 and stopping:  # the first call asks for the dimension
            raise KeyboardInterrupt
        read.append(1)
        return keys(self, sequences)

    monkeypatch.setattr(Decoder, "keys", counted)
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "parts")
    stopping = False
    batches = len(read) - 1
    read.clear()
    build(tmp_path / "parts")
    assert batches == calls
    assert len(read) - 1 == 6 - calls  # 12 windows in batches of two
    assert held(tmp_path / "parts") == held(tmp_path / "whole")
    read.clear()
    build(tmp_path / "parts")
    assert len(read) == 1  # it is there


_KILLED = """
import os, signal, sys
from pathlib import Path
import generators.knn_lm.build as builder
from generators.knn_lm import Datastore, Windows
from tests.generators.knn_lm import tiny
builder._COMMIT = 1
if sys.argv[2] == "reading":
    def progress(done, total):
        if done > total // 2:
            os.kill(os.getpid(), signal.SIGKILL)
else:
    progress = None
    builder.Manifest.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Datastore.build(Path(sys.argv[1]), tiny.decoder(), tiny.TEXTS, Windows(12, 8), batch=2, progress=progress)
"""


@pytest.mark.parametrize("where", ["reading", "before the manifest"])
def test_a_killed_build_goes_on(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    child = subprocess.run([sys.executable, "-c", _KILLED, str(folder), where], env=environment, capture_output=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    with pytest.raises(CorpusError, match="no finished datastore"):
        Datastore(folder)
    build(folder)
    build(tmp_path / "whole")
    assert held(folder) == held(tmp_path / "whole")


def test_another_datastore_is_never_overwritten(tmp_path: Path) -> None:
    build(tmp_path)
    before = held(tmp_path)
    for decoder, texts, windows in (
        (tiny.decoder(seed=1), tiny.TEXTS, WINDOWS),
        (tiny.decoder(), tiny.TEXTS[:1], WINDOWS),
        (tiny.decoder(), tiny.TEXTS, Windows(12, 7)),
    ):
        with pytest.raises(CorpusMismatch, match="of another model, corpus or window is there"):
            Datastore.build(tmp_path, decoder, texts, windows, batch=2)
    assert held(tmp_path) == before


def _stopped(folder: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(folder, progress=stop)


@pytest.mark.usefixtures("often")
def test_what_a_stopped_build_left_is_checked(tmp_path: Path) -> None:
    _stopped(tmp_path / "one")
    with pytest.raises(CorpusMismatch, match="was stopped here"):
        Datastore.build(tmp_path / "one", tiny.decoder(), tiny.TEXTS[:1], WINDOWS, batch=2)
    for name, text, message in (
        ("building.json", b"{", "not what a build writes"),
        ("keys.npy", b"", "cannot be read"),
        ("tokens.npy", None, "cannot be read"),
    ):
        shutil.copytree(tmp_path / "one", tmp_path / name)
        (tmp_path / name / name).unlink()
        if text is not None:
            (tmp_path / name / name).write_bytes(text)
        with pytest.raises(CorpusDamaged, match=message):
            build(tmp_path / name)
    np.save(tmp_path / "one" / "tokens.npy", np.zeros(3, dtype=np.int32))
    with pytest.raises(CorpusDamaged, match="other shapes"):
        build(tmp_path / "one")


@pytest.mark.parametrize("texts", [[], [""], ["a", "b"]])
def test_an_empty_corpus(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(InputError, match="the corpus is empty"):
        Datastore.build(tmp_path / "store", tiny.decoder(), texts, WINDOWS)
    assert not (tmp_path / "store").exists()


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a list of texts, not one string"):
        Datastore.build(tmp_path, tiny.decoder(), "the cat", WINDOWS)
    with pytest.raises(InputError, match="is a string, not bytes"):
        Datastore.build(tmp_path, tiny.decoder(), [b"the cat"], WINDOWS)  # type: ignore[list-item]
    with pytest.raises(InputError, match="batch is a whole number"):
        Datastore.build(tmp_path, tiny.decoder(), tiny.TEXTS, WINDOWS, batch=0)
    with pytest.raises(InputError, match="reads at most 64 at once"):
        Datastore.build(tmp_path, tiny.decoder(), tiny.TEXTS, Windows(66, 8))


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    with FileLock(tmp_path / "datastore.lock"), pytest.raises(CorpusLocked, match="another process builds"):
        build(tmp_path)
    build(tmp_path)


def test_no_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1000))
    with pytest.raises(CorpusError, match=r"needs 1 MB for 95 entries and the disk has 0 MB"):
        build(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} <= {"datastore.lock"}


def test_hidden_states_beyond_half_precision(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    decoder.model.model.layers[-1].post_attention_layernorm.weight.data *= 1e6
    with pytest.raises(ModelError, match="not finite in float16"):
        Datastore.build(tmp_path, decoder, tiny.TEXTS, WINDOWS)


def test_texts_are_told_apart() -> None:
    source = tiny.decoder().source
    one, other = (Plan.of(source, texts, WINDOWS, 2) for texts in ([[1, 2], [3, 4]], [[1, 23, 4]]))
    assert one.corpus != other.corpus
