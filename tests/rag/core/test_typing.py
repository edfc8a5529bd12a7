"""Which values may travel into which ports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, Union

import pytest

from rag.core.protocols import LanguageModel, Retriever
from rag.core.types import Hit, Passage
from rag.core.typing import accepts, describe, fits, protocol_methods

T = TypeVar("T")


class Named(Protocol):
    @property
    def name(self) -> str: ...


class WithName:
    name = "x"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (str, str),
        (str, Any),
        (Any, str),
        (bool, int),
        (int, float),
        (str, object),
        (str, T),
        (list[Hit], list[Hit]),
        (list[Hit], list),
        (list, list[Hit]),
        (list[Hit], Sequence[Hit]),
        (list[Hit], Iterable[Any]),
        (tuple[Hit, ...], Sequence[Hit]),
        (tuple[int, bool], Sequence[int]),
        (tuple[Hit, ...], tuple[Hit, ...]),
        (dict[str, int], Mapping[str, int]),
        (dict[str, int], Iterable[str]),
        (str, str | None),
        (str, Union[int, str]),
        (Literal["a", "b"], str),
        (Literal["a"], Literal["a", "b"]),
        (WithName, Named),
    ],
)
def test_fits(source: Any, target: Any) -> None:
    assert fits(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (str, int),
        (float, int),
        (str | None, str),
        (list[Hit], list[Passage]),
        (list[Hit], Hit),
        (Hit, list[Hit]),
        (Sequence[Hit], list[Hit]),
        (dict[str, int], dict[str, str]),
        (str, Literal["a"]),
        (Literal["a", "c"], Literal["a", "b"]),
        (Literal[1], str),
        (int, Named),
        (tuple[str, ...], Sequence[int]),
        (list[Hit], Retriever),
    ],
)
def test_does_not_fit(source: Any, target: Any) -> None:
    assert not fits(source, target)


def test_accepts_looks_at_the_value_only_from_outside() -> None:
    assert accepts(list[Hit], [])
    assert accepts(str | None, None)
    assert accepts(float, 3)
    assert accepts(Literal["a"], "a")
    assert not accepts(Literal["a"], "b")
    assert not accepts(str, 3)
    assert not accepts(int, True), "a bool where a number is expected is a mistake"
    assert not accepts(list[Hit], "text")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (list[Hit], "list[Hit]"),
        (str | None, "str | None"),
        (Literal["a"], "Literal['a']"),
        (tuple[int, ...], "tuple[int, ...]"),
        (None, "None"),
    ],
)
def test_describe(annotation: Any, text: str) -> None:
    assert describe(type(None) if annotation is None else annotation) == text


def test_protocol_methods() -> None:
    assert protocol_methods(Retriever) == ["asearch"]
    assert len(protocol_methods(LanguageModel)) > 1
    assert protocol_methods(list) == []
