"""Worked examples in a prompt, and whether a reply kept to the question instead of to them."""

from __future__ import annotations

import re

from generators.prompts import render
from generators.support import content
from rag.core.types import Message

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


def shots(name: str, language: str) -> list[Message]:
    """The examples in the template ``name``: turns of user and assistant, alternating, with a line "---" between them.

    As turns of the chat they show an untrained model the form of a reply better than rules do.
    """
    turns = render(name, language).split("\n---\n")
    return [
        message
        for asked, replied in zip(turns[::2], turns[1::2], strict=True)
        for message in (Message("user", asked), Message("assistant", replied))
    ]


def on_topic(reply: str, question: str) -> bool:
    """Whether ``reply`` has a content word, a number or a Chinese character of ``question``; any word will do if that has none."""
    wanted = _content(question)
    return bool(wanted & _content(reply)) if wanted else re.search(r"\w", reply) is not None


def _content(text: str) -> set[str]:
    words, numbers = content(text)
    return words | numbers | set(_HAN.findall(text))
