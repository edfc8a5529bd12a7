from __future__ import annotations

import pytest

from rag.serve.documents.names import document_id, root_of
from rag.serve.errors import RequestError

TAKEN = ["a.md", "a/b.md", "手册/服装.md", "no suffix", "a.b.c", "console.md", "com10.txt", "x" * 255, "a#1", "..a", "a%2Fb"]
PATHS = ["../a", "a/../b", "a/..", "a/./b", "a//b", "a/", "/etc/passwd", "//host/x", "\\\\host\\x", "a\\b", "C:\\x", "c:x", ".", ".."]
CONTROLS = ["a\nb", "a\0b", "a\x1b[2J", "a\x7f", "a\u2028b", "\udc80"]
OTHERS = ["", " ", "con", "NUL.txt", "a/Com1.tar.gz", "lpt³", "aux .md", "x" * 256, "é" * 128]


@pytest.mark.parametrize("name", TAKEN)
def test_names_that_are_taken_as_they_are(name: str) -> None:
    assert document_id(name) == name


def test_a_name_is_composed() -> None:
    assert document_id("e\u0301.md") == "é.md"


@pytest.mark.parametrize("name", [*PATHS, *CONTROLS, *OTHERS])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(RequestError) as refused:
        document_id(name)
    assert (refused.value.status, refused.value.code) == (400, "invalid_name")


def test_only_tables_are_a_root_of_their_own() -> None:
    assert (root_of("a/t.CSV"), root_of("a.md"), root_of("csv")) == ("upload:a/t.CSV", "", "")
