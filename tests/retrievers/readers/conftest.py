from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rag.core.errors import ReadError
from rag.core.types import Document
from retrievers.readers import read

Put = Callable[[str, str | bytes], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a file below the test's own folder and returns its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def one(put: Put) -> Callable[[str, str | bytes], Document]:
    """Reads a file that holds one document."""

    def reads(name: str, content: str | bytes) -> Document:
        (document,) = read(put(name, content))
        document.text.encode()  # what UTF-8 cannot hold must not get this far
        document.title.encode()
        return document

    return reads


@pytest.fixture
def reason(put: Put) -> Callable[[str, str | bytes], str]:
    """Reads a file that cannot be read and returns the message, which must name the file and come before any document."""

    def fails(name: str, content: str | bytes) -> str:
        path = put(name, content)
        documents = read(path)
        with pytest.raises(ReadError) as caught:
            next(documents)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value).removeprefix(f"{path}: ")

    return fails
