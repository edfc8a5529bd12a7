from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rag.core.errors import InputError
from rag.serve.documents.spool import Spool, full_disk
from rag.serve.errors import RequestError


def test_a_file_is_private_random_and_gone_when_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    file = spool.create(".md")
    file.write(b"text")
    file.close()
    assert file.path.read_bytes() == b"text"
    assert file.path.suffix == ".md"
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert spool.create(".md").path != file.path
    assert spool.used == 4
    file.remove()
    file.remove()
    assert not file.path.exists()
    assert spool.used == 0


def test_room_is_bounded_and_comes_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, capacity=10)
    first, second = spool.create(), spool.create()
    first.write(b"x" * 8)
    with pytest.raises(RequestError) as refused:
        second.write(b"x" * 3)
    assert (refused.value.status, refused.value.retry_after) == (429, 30)
    first.remove()
    second.write(b"x" * 10)


def test_what_dead_runs_left_is_removed_and_what_live_ones_have_is_not(tmp_path: Path) -> None:
    live = Spool(tmp_path)
    file = live.create()
    dead = tmp_path / "run-dead"
    dead.mkdir()
    (dead / "upload").write_bytes(b"x")
    (tmp_path / "run-dead.lock").touch()
    (tmp_path / "run-gone.lock").touch()
    (tmp_path / "somebody-else").mkdir()
    other = Spool(tmp_path)
    assert file.path.exists()
    assert sorted(path.name for path in tmp_path.glob("run-*")) == sorted(
        name for spool in (live, other) for name in (spool.folder.name, f"{spool.folder.name}.lock")
    )
    assert (tmp_path / "somebody-else").exists()
    live.close()
    other.close()
    assert not list(tmp_path.glob("run-*"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="name a folder"):
        Spool(tmp_path / "file" / "spool")


def test_only_a_full_disk_is_a_full_disk() -> None:
    assert getattr(full_disk(OSError(errno.ENOSPC, "full")), "status", None) == 507
    assert full_disk(OSError(errno.EACCES, "no")) is None
    assert full_disk(ValueError()) is None
