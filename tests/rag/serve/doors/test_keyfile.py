from __future__ import annotations

import json
import logging
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from rag.core.errors import ConfigError, InputError
from rag.serve.doors import keyfile
from rag.serve.doors.keyfile import Entry, KeyFile, Watched, digest


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def test_a_key_is_random_shown_once_and_kept_as_a_digest(file: KeyFile) -> None:
    secret, other = file.add("web", ["write", "ask"]), file.add("other", ["admin"])
    assert secret.startswith("graft_")
    assert len(secret) == len("graft_") + 43
    assert secret != other
    entry, _ = file.entries()
    assert (entry.name, entry.scopes, entry.expires) == ("web", ("ask", "write"), None)
    assert entry.sha256 == digest(secret.encode())
    assert timedelta(0) <= datetime.now(UTC) - entry.created < timedelta(minutes=1)
    kept = file.path.read_text()
    assert secret not in kept
    assert secret.removeprefix("graft_") not in kept
    assert entry.sha256 not in repr(entry)
    assert len({entry.id for entry in file.entries()}) == 2


def test_the_file_is_for_its_owner_only_whatever_the_umask(file: KeyFile) -> None:
    before = os.umask(0)
    try:
        file.add("web", ["ask"])
        file.path.chmod(0o644)
        file.add("other", ["ask"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_remove_takes_one_key(file: KeyFile) -> None:
    for name in ("a", "b", "c"):
        file.add(name, ["ask"])
    assert file.remove("b").name == "b"
    assert [entry.name for entry in file.entries()] == ["a", "c"]
    with pytest.raises(InputError, match="no key named 'b'; there are: a, c"):
        file.remove("b")


def test_an_expiry_is_kept_to_the_second(file: KeyFile) -> None:
    end = datetime(2190, 1, 2, 3, 4, 5, tzinfo=UTC)
    file.add("web", ["ask"], end)
    assert file.entries()[0].expires == end


@pytest.mark.parametrize(
    ("name", "scopes", "expires", "says"),
    [
        ("", ["ask"], None, "a key's name"),
        ("../x", ["ask"], None, "a key's name"),
        ("a b", ["ask"], None, "a key's name"),
        ("a\n", ["ask"], None, "a key's name"),
        ("x" * 65, ["ask"], None, "a key's name"),
        ("-a", ["ask"], None, "a key's name"),
        ("a", [], None, "scopes ask, write, admin, not none"),
        ("a", ["ask", "root"], None, "scopes ask, write, admin"),
        ("a", "ask", None, "scopes ask, write, admin"),
        ("a", ["ask"], datetime(2190, 1, 1), "with its zone"),
        ("a", ["ask"], datetime(2020, 1, 1, tzinfo=UTC), "a time to come"),
        ("taken", ["ask"], None, "already"),
    ],
)
def test_what_no_key_can_be_changes_nothing(file: KeyFile, name: str, scopes: Any, expires: datetime | None, says: str) -> None:
    file.add("taken", ["ask"])
    before = file.path.read_bytes()
    with pytest.raises(InputError, match=says):
        file.add(name, scopes, expires)
    assert file.path.read_bytes() == before


def test_the_number_of_keys_is_bounded(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile, "MAX_KEYS", 2)
    for name in ("a", "b"):
        file.add(name, ["ask"])
    with pytest.raises(InputError, match="more are not taken"):
        file.add("c", ["ask"])


def good() -> dict[str, Any]:
    key = {"name": "a", "id": "key_1", "sha256": "0" * 64, "scopes": ["ask"], "created": "2026-01-01T00:00:00Z", "expires": None}
    return {"format": "graft-keys", "version": 1, "keys": [key, {**key, "name": "b", "id": "key_2", "sha256": "1" * 64}]}


def changed(**fields: Any) -> dict[str, Any]:
    content = good()
    content["keys"][1].update(fields)
    return content


FIRST: dict[str, Any] = good()["keys"][0]
DAMAGED: list[tuple[str, Any]] = [
    ("empty", b""),
    ("cut", json.dumps(good()).encode()[:-9]),
    ("foreign", b"-----BEGIN PRIVATE KEY-----\nhunter2\n"),
    ("foreign JSON", {"keys": []}),
    ("a list", []),
    ("not UTF-8", b"\xff\xfe"),
    ("deep", b"[" * 100_000),
    ("another version", {**good(), "version": 2}),
    ("version as text", {**good(), "version": "1"}),
    ("another format", {**good(), "format": "hunter2"}),
    ("unknown field", {**good(), "more": 1}),
    ("unknown field of a key", changed(more=1)),
    ("unknown scope", changed(scopes=["ask", "root"])),
    ("no scope", changed(scopes=[])),
    ("scope as text", changed(scopes="ask")),
    ("short digest", changed(sha256="1" * 63)),
    ("no digest", changed(sha256="")),
    ("digest in capitals", changed(sha256="A" * 64)),
    ("time without zone", changed(expires="2190-01-01T00:00:00")),
    ("time as number", changed(expires=4e9)),
    ("odd time", changed(created="yesterday")),
    ("name with a line end", changed(name="b\n")),
    ("id with a line end", changed(id="key_2\nkey_3")),
    ("two of a name", changed(name="a")),
    ("two of an id", changed(id="key_1")),
    ("two of a digest", changed(sha256="0" * 64)),
    ("too large", json.dumps(good()).encode() + b" " * 1_000_000),
    ("too many", {**good(), "keys": [{**FIRST, "name": f"n{i}", "id": f"key_{i}", "sha256": f"{i:064x}"} for i in range(1_001)]}),
]


@pytest.mark.parametrize("content", [case[1] for case in DAMAGED], ids=[case[0] for case in DAMAGED])
def test_a_damaged_or_foreign_file_is_refused_and_kept(file: KeyFile, content: Any) -> None:
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    file.path.write_bytes(content)
    for work in (file.entries, lambda: file.add("c", ["ask"]), lambda: file.remove("a")):
        with pytest.raises(ConfigError, match=r"no key file of this version, or it is damaged .*; bring back a copy") as raised:
            work()
        assert "hunter2" not in str(raised.value)
        assert len(str(raised.value)) < 1_000
    assert file.path.read_bytes() == content


def test_the_good_file_of_those_tests_is_good(file: KeyFile) -> None:
    file.path.write_text(json.dumps(good()))
    assert [entry.name for entry in file.entries()] == ["a", "b"]


def test_what_is_no_file_is_refused_at_once(file: KeyFile, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no key file .*rag keys add"):
        file.entries()
    with pytest.raises(ConfigError, match="cannot be read"):
        KeyFile(tmp_path).entries()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is no file"):
        KeyFile(tmp_path / "pipe").entries()
    with pytest.raises(ConfigError, match="is no file"):
        KeyFile("/dev/zero").entries()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_use_is_warned_of(file: KeyFile, caplog: pytest.LogCaptureFixture, mode: int) -> None:
    file.add("a", ["ask"])
    file.entries()
    assert caplog.text == ""
    file.path.chmod(mode)
    assert len(file.entries()) == 1
    assert f"mode {mode:o}); run: chmod 600 {file.path}" in caplog.text


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_file_as_it_was(file: KeyFile, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    file.add("a", ["ask"])
    before = file.path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, full)
        with pytest.raises(ConfigError, match=r"cannot be written .No space left"):
            file.add("b", ["ask"])
    assert file.path.read_bytes() == before
    assert {path.name for path in file.path.parent.iterdir()} <= {"keys.json", "keys.json.lock"}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    KeyFile(tmp_path / "link").add("a", ["ask"])
    assert (tmp_path / "link").is_symlink()
    assert len(KeyFile(tmp_path / "real").entries()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_file_stays_its_owners(file: KeyFile) -> None:
    file.add("a", ["ask"])
    os.chown(file.path, 1234, 1235)
    file.add("b", ["ask"])
    state = file.path.stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (1234, 1235, 0o600)


def test_who_writes_at_the_same_time_loses_nothing(file: KeyFile) -> None:
    faults: list[Exception] = []

    def add(number: int) -> None:
        try:
            for part in "ab":
                KeyFile(file.path).add(f"{part}{number}", ["ask"])
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert {entry.name for entry in file.entries()} == {f"{part}{number}" for part in "ab" for number in range(6)}


def test_a_writer_that_does_not_end_is_not_waited_for_for_ever(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile, "_PATIENCE", 0.1)
    with FileLock(f"{file.path}.lock"), pytest.raises(ConfigError, match="another process has been writing"):
        file.add("a", ["ask"])
    file.add("a", ["ask"])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.name for entry in entries]


def test_a_change_is_seen_within_a_second_and_no_sooner(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.add("a", ["ask"])
    clock = Clock()
    watched = Watched(file, clock)
    looks, reads = [], []
    mark, read = file.mark, file.read
    monkeypatch.setattr(file, "mark", lambda: looks.append(1) or mark())
    monkeypatch.setattr(file, "read", lambda: reads.append(1) or read())
    KeyFile(file.path).add("b", ["ask"])
    clock.now += 0.9
    for _ in range(5):
        assert names(watched.entries()) == ["a"]
    assert looks == []
    clock.now += 0.2
    for _ in range(5):
        assert names(watched.entries()) == ["a", "b"]
    assert (len(looks), len(reads)) == (1, 1)
    clock.now += 1
    watched.entries()
    assert (len(looks), len(reads)) == (2, 1)
    KeyFile(file.path).remove("a")
    clock.now += 1
    assert names(watched.entries()) == ["b"]


def test_a_file_of_the_same_size_and_time_is_still_another(file: KeyFile) -> None:
    file.add("a", ["ask"])
    clock = Clock()
    watched = Watched(file, clock)
    state = file.path.stat()
    other = file.path.with_name("other")
    other.write_text(file.path.read_text().replace('"a"', '"b"'))
    other.chmod(0o600)
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(other, file.path)
    clock.now += 1
    assert names(watched.entries()) == ["b"]


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_file_that_breaks_meanwhile_keeps_the_last_good_keys(file: KeyFile, caplog: pytest.LogCaptureFixture, how: str) -> None:
    file.add("a", ["ask"])
    clock = Clock()
    watched = Watched(file, clock)
    good = file.path.read_bytes()
    if how == "gone":
        file.path.unlink()
    else:
        file.path.write_bytes(good[:-5])
    with caplog.at_level(logging.INFO, "graft.serve"):
        for _ in range(3):
            clock.now += 1
            assert names(watched.entries()) == ["a"]
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "the keys stay as they were (1)" in caplog.text
        file.path.write_bytes(good.replace(b'"a"', b'"b"'))
        file.path.chmod(0o600)
        clock.now += 1
        assert names(watched.entries()) == ["b"]
    assert caplog.records[-1].levelname == "INFO"


def test_each_time_that_a_file_goes_is_told(file: KeyFile, caplog: pytest.LogCaptureFixture) -> None:
    file.add("a", ["ask"])
    clock = Clock()
    watched = Watched(file, clock)
    for here, there in (("keys.json", "away"), ("away", "keys.json")) * 2:
        os.replace(file.path.with_name(here), file.path.with_name(there))
        clock.now += 1
        assert names(watched.entries()) == ["a"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_file_that_can_be_read_again_is_read_again(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the mode leaves size and time as they are."""
    file.add("a", ["ask"])
    clock = Clock()
    watched = Watched(file, clock)
    file.add("b", ["ask"])

    def refused(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(keyfile, "_without_waiting", refused)
        clock.now += 1
        assert names(watched.entries()) == ["a"]
    clock.now += 1
    assert names(watched.entries()) == ["a", "b"]


def test_a_file_that_is_damaged_at_the_start_is_an_error(file: KeyFile) -> None:
    file.path.write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        Watched(file)
