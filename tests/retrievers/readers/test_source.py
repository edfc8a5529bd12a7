from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag.core.errors import InputError, ReadError
from retrievers.readers import read
from retrievers.readers.source import list_files, load


def ids(*paths: Path, include: tuple[str, ...] = ()) -> list[str]:
    return [file.id for file in list_files(paths, include)]


def test_files_are_sorted_and_named_below_the_folder(put, tmp_path):
    for name in ("b.md", "a/z.txt", "a/b/c.txt"):
        put(name, "x")
    assert ids(tmp_path) == ["a/b/c.txt", "a/z.txt", "b.md"]
    assert ids(tmp_path / "a") == ["b/c.txt", "z.txt"]
    assert ids(tmp_path / "a/z.txt") == ["z.txt"]


def test_hidden_and_version_control_folders_are_left_out(put, tmp_path):
    for name in (".git/config", ".hidden.md", "CVS/Root", "node_modules/x/README.md", "__pycache__/a.txt", "kept.md"):
        put(name, "x")
    assert ids(tmp_path) == ["kept.md"]


def test_unreadable_kinds_are_listed_so_that_reading_says_why(put, tmp_path):
    put("logo.png", "x")
    assert ids(tmp_path) == ["logo.png"]


def test_include_matches_names_and_ids(put, tmp_path):
    for name in ("a.md", "docs/b.md", "docs/c.txt"):
        put(name, "x")
    assert ids(tmp_path, include=("*.md",)) == ["a.md", "docs/b.md"]
    assert ids(tmp_path, include=("docs/*",)) == ["docs/b.md", "docs/c.txt"]


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(ReadError, match="there is no such file or folder"):
        list_files(tmp_path / "nowhere")


def test_two_files_of_one_name_are_an_error_that_names_both(put):
    one, two = put("a/faq.txt", "x"), put("b/faq.txt", "x")
    with pytest.raises(InputError, match=r"would both be called 'faq\.txt'") as caught:
        list_files([one, two])
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)
    assert len(list_files([one, one])) == 1


def test_a_link_out_of_the_folder_is_not_read(put, tmp_path):
    secret = put("outside/secret.txt", "secret")
    put("docs/a.txt", "x")
    (tmp_path / "docs/link.txt").symlink_to(secret)
    (tmp_path / "docs/linked").symlink_to(secret.parent, target_is_directory=True)
    files = {file.id: file for file in list_files(tmp_path / "docs")}
    assert sorted(files) == ["a.txt", "link.txt", "linked"]
    for name in ("link.txt", "linked"):
        with pytest.raises(ReadError, match="leads out of the folder"):
            load(files[name].path, files[name].root)


def test_a_link_inside_the_folder_is_read_and_link_cycles_end(put, tmp_path):
    put("a.txt", "text")
    (tmp_path / "b.txt").symlink_to("a.txt")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.txt").symlink_to("self.txt")
    assert ids(tmp_path) == ["a.txt", "b.txt", "loop", "self.txt"]
    assert load(tmp_path / "b.txt").data == b"text"
    with pytest.raises(ReadError, match="cannot be opened"):
        load(tmp_path / "self.txt")


def test_dots_do_not_lead_out(put, tmp_path):
    put("secret.txt", "secret")
    (tmp_path / "docs").mkdir()
    with pytest.raises(ReadError, match="outside the folder"):
        load(tmp_path / "docs/../secret.txt", tmp_path / "docs")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ReadError, match="not a regular file"):
        load(tmp_path / "pipe.txt")


def test_a_folder_or_a_name_with_a_zero_byte_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "a\0b.txt"):
        with pytest.raises(ReadError):
            load(path)


def test_the_size_limit_is_named(put):
    path = put("a.txt", "x" * 11)
    assert load(path, max_bytes=11).data == b"x" * 11
    with pytest.raises(ReadError, match="has 11 bytes, more than the limit of 10"):
        load(path, max_bytes=10)


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n"])
def test_an_empty_file_is_an_error(put, content):
    with pytest.raises(ReadError, match="is empty"):
        load(put("a.txt", content))


def test_a_name_that_is_not_unicode_is_an_error(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    try:
        path.write_text("x")
    except OSError:
        pytest.skip("this file system only takes Unicode names")
    (file,) = list_files(tmp_path)
    file.id.encode()
    with pytest.raises(ReadError, match="name that is not Unicode") as caught:
        load(file.path, file.root)
    str(caught.value).encode()
    with pytest.raises(ReadError, match="there is no reader") as caught:
        next(read(file.path.with_suffix(".png")))
    str(caught.value).encode()


def test_ids_do_not_depend_on_how_the_system_spells_an_accent(put, tmp_path):
    put("cafe\u0301.txt", "x")
    assert ids(tmp_path) == ["caf\u00e9.txt"]


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/x.txt", "file:///etc/passwd", "ftp://example.com/a.txt", "https://example.com/"]
)
def test_an_address_is_a_path_that_is_not_there(address, monkeypatch):
    import socket

    def connect(*_):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ReadError):
        list(list_files([address]))
    with pytest.raises(ReadError):
        list(read(address))
