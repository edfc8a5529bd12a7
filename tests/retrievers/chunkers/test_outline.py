from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievers.chunkers.outline import blocks, first_heading

LINES = [
    "# A\n",
    "## B ##\n",
    "Text\n",
    "===\n",
    "---\n",
    "```\n",
    "~~~~\n",
    "| a | b |\n",
    "|---|---|\n",
    "\n",
    "    # code\n",
    "- item\n",
    "#no\n",
    "\r\n",
    "end",
]


def kinds(text: str) -> list[tuple[str, str]]:
    return [(block.kind, text[block.start : block.end]) for block in blocks(text)]


@given(st.one_of(st.text(alphabet=st.characters()), st.lists(st.sampled_from(LINES)).map("".join)))
def test_blocks_tile_any_text(text):
    assert "".join(piece for _, piece in kinds(text)) == text


def test_headings():
    found = [(b.level, b.title) for b in blocks("# A\n   ### B ##\n#\n####### no\n#no\n    # code\n# C #1\n") if b.kind == "heading"]
    assert found == [(1, "A"), (3, "B"), (1, ""), (1, "C #1")]


def test_underlined_headings_need_a_line_of_their_own():
    assert [(b.level, b.title) for b in blocks("C\n===\n\nD\n--\n") if b.kind == "heading"] == [(1, "C"), (2, "D")]
    assert kinds("- item\n---\n") == [("prose", "- item\n---\n")]
    assert kinds("\n---\n") == [("prose", "\n---\n")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n```py\n# no\n\n```\nb\n", ["prose", "code", "prose"]),
        ("~~~\n```\n# no\n~~~\n# yes\n", ["code", "heading"]),
        ("````\n```\n# no\n````\n# yes\n", ["code", "heading"]),
        ("```\n# never closed\n", ["code"]),
        ("``` not `a` fence\n# yes\n", ["prose", "heading"]),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |\n\nend", ["table", "prose"]),
        ("a | b\n--|--\n1 | 2\n", ["table"]),
        ("a | b\nno table\n", ["prose"]),
        ("# A\r\ntext\r\n", ["heading", "prose"]),
    ],
)
def test_kinds(text, expected):
    assert [kind for kind, _ in kinds(text)] == expected


def test_first_heading():
    assert first_heading("```\n# no\n```\n#\n## Yes\n# Later") == "Yes"
    assert first_heading("no heading") == ""
