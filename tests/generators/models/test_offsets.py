from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.models.offsets import Detokenizer, StopStrings, align, cut_tokens
from rag.core.types import Token


def byte_decode(ids: list[int]) -> str:
    """A tokenizer whose tokens are single bytes."""
    return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="�")))
def test_detokenizer_gives_each_character_whole_with_its_last_byte(text: str) -> None:
    detokenizer = Detokenizer(byte_decode)
    pieces = [detokenizer.add(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert [p for p in pieces if p] == list(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="�")), st.integers(0, 40))
def test_spans_tile_any_text_however_it_is_cut(text: str, cut: int) -> None:
    detokenizer = Detokenizer(byte_decode)
    pieces = [detokenizer.add(byte) for byte in text.encode()]
    shown = text[:cut]
    spans = align(pieces, shown)
    assert len(spans) == len(pieces)
    assert "".join(shown[start:end] for start, end in spans) == shown
    assert all(a[1] == b[0] for a, b in pairwise(spans))


def test_detokenizer_withholds_an_unfinished_character() -> None:
    detokenizer = Detokenizer(byte_decode)
    first, *_ = "好".encode()
    assert detokenizer.add(ord("a")) == "a"
    assert detokenizer.add(first) == ""


def test_detokenizer_keeps_the_space_that_a_tokenizer_drops_at_the_start() -> None:
    words = {1: "▁the", 2: "▁cat", 3: "s"}

    def decode(ids: list[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    with_context = Detokenizer(decode, context=[1])
    assert [with_context.add(i) for i in (2, 3, 1)] == [" cat", "s", " the"]
    assert Detokenizer(decode).add(2) == "cat"


def test_detokenizer_skips_special_tokens() -> None:
    def decode(ids: list[int]) -> str:
        return byte_decode([i for i in ids if i < 256])

    detokenizer = Detokenizer(decode)
    assert [detokenizer.add(i) for i in (97, 300, 98)] == ["a", "", "b"]


@pytest.mark.parametrize(
    ("pieces", "text", "spans"),
    [
        (["a", "b"], "ab", [(0, 1), (1, 2)]),
        (["a", "", "好"], "a好", [(0, 1), (1, 1), (1, 2)]),
        (["a", "<|end|>"], "a", [(0, 1), (1, 1)]),
        (["a", "<tool>", "b"], "ab", [(0, 1), (1, 1), (1, 2)]),
        (["the", "cat"], "the cat", [(0, 3), (3, 7)]),  # decoded alone, the tokens lost their space
        (["ab", "cd"], "abc", [(0, 2), (2, 3)]),  # a stop string cut within the last token
        (["a", "", "b"], "a��b", [(0, 1), (1, 1), (1, 4)]),  # bytes that never became a character
        (["a", "b", ""], "abxyz", [(0, 1), (1, 5), (5, 5)]),  # a rest that nobody claims
        ([], "", []),
    ],
)
def test_align(pieces: list[str], text: str, spans: list[tuple[int, int]]) -> None:
    assert align(pieces, text) == spans


def test_cut_tokens_drops_what_lies_beyond_and_shortens_what_lies_astride() -> None:
    tokens = [Token("ab", 1, -1.0, 0, 2), Token("cd", 2, -2.0, 2, 4), Token("", 3, -3.0, 4, 4), Token("e", 4, -4.0, 4, 5)]
    assert cut_tokens(tokens, 3) == (tokens[0], Token("c", 2, -2.0, 2, 3))
    assert cut_tokens(tokens, 0) == ()
    assert cut_tokens(tokens, 5) == tuple(tokens)


@pytest.mark.parametrize(
    ("stop", "text", "new", "found"),
    [
        (("\n\n",), "a\n\nb", 2, 1),
        (("b", "ab"), "cab", 1, 2),  # equal ends: the first of the list
        (("xyz", "y"), "axyz", 3, 2),  # the one that completes first
        (("a",), "aab", 1, None),  # text that was searched before is not searched again
        ((), "abc", 3, None),
    ],
)
def test_stop_strings_find(stop: tuple[str, ...], text: str, new: int, found: int | None) -> None:
    assert StopStrings(stop).find(text, new) == found


@pytest.mark.parametrize(("text", "safe"), [("hello", 5), ("hello<", 5), ("hello<|en", 5), ("<|enx", 5), ("<", 0), ("a<<|", 2)])
def test_safe_text_never_ends_in_the_beginning_of_a_stop_string(text: str, safe: int) -> None:
    assert StopStrings(("<|end",)).safe(text) == safe


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_streamed_text_is_the_cut_text(pieces: list[str], stop: list[str]) -> None:
    def run(stream: Callable[[str], None]) -> str:
        stops, text, told = StopStrings(stop), "", 0
        for piece in pieces:
            text += piece
            cut = stops.find(text, len(piece))
            if cut is not None:
                stream(text[told:cut])
                return text[:cut]
            until = stops.safe(text)
            stream(text[told:until])
            told = until
        stream(text[told:])
        return text

    heard: list[str] = []
    text = run(heard.append)
    assert "".join(heard) == text
    assert not any(s in text for s in stop)
