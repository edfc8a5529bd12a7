from __future__ import annotations

from collections.abc import Sequence

import pytest

from rag.core.errors import ConfigError
from rag.core.pipeline import Pipeline


class Word:
    def __init__(self, text: str) -> None:
        self.text = text


class Said:
    def __init__(self, word: Word, times: int = 1, more: Sequence[Word] = ()) -> None:
        self.word = word
        self.times = times
        self.more = more
        self._whole = " ".join([word.text] * times + [one.text for one in more])  # derived: a copy would keep the old one

    def run(self, question: str) -> str:
        return f"{question} {self._whole}"


class Outer:
    def __init__(self, said: Said) -> None:
        self.said = said

    def run(self, text: str) -> str:
        return self.said.run(text)


class Silent:
    """Does not keep what it was given."""

    def __init__(self, word: Word, other: Word) -> None:
        self.word = word

    def run(self, question: str) -> str:
        return self.word.text


def loud(text: str) -> str:
    return text.upper()


OLD, NEW = Word("old"), Word("new")


def changed(part: object) -> object:
    return NEW if part is OLD else part


def test_what_holds_the_part_is_built_anew_and_the_rest_is_shared() -> None:
    kept = Said(Word("kept"))
    pipe = Pipeline().add("kept", kept).add("said", Said(OLD, 2, [Word("x"), OLD]), timeout=3.0).add("loud", loud)
    pipe.connect("kept", "said").connect("said", "loud")
    other = pipe.replaced(changed)
    assert (pipe.run("a"), other.run("a")) == ("A KEPT OLD OLD X OLD", "A KEPT NEW NEW X NEW")
    assert other.nodes["kept"].component is kept
    assert other.nodes["said"].timeout == 3.0


def test_parts_of_parts_and_parts_that_are_shared() -> None:
    said = Said(OLD)
    pipe = Pipeline().add("first", Outer(said)).add("second", Outer(said)).connect("first", "second")
    other = pipe.replaced(changed)
    assert other.run("a") == "a new new"
    assert other.nodes["first"].component.said is other.nodes["second"].component.said
    assert pipe.run("a") == "a old old"


def test_a_part_that_is_a_node_itself() -> None:
    pipe = Pipeline().add("loud", loud)
    other = pipe.replaced(lambda part: quiet if part is loud else part)
    assert (pipe.run("Ab"), other.run("Ab")) == ("AB", "ab")


def quiet(text: str) -> str:
    return text.lower()


def test_what_cannot_be_built_anew_says_so() -> None:
    with pytest.raises(ConfigError, match="Silent does not keep its argument 'other'"):
        Pipeline().add("silent", Silent(OLD, Word("y"))).replaced(changed)
    assert Pipeline().add("silent", Silent(Word("y"), OLD)).replaced(changed).run("q") == "y"
