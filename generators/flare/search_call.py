"""A "[Search(term)]" in what a model wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag.core.types import Generation

OPENS = "[Search("
STOPS = (")]", "\n\n")
"""The end of a call, and that of an answer."""

_UNCLOSED = re.compile(r"\[[^\]\n]*\([^)\n]*$")


@dataclass(frozen=True, slots=True)
class Segment:
    """``text`` stays in the answer. ``query`` is what the model asks for behind it: None if nothing, blank if the call is malformed.

    ``ends`` says that the answer ends with it.
    """

    text: str
    query: str | None
    ends: bool


def segment_of(written: Generation) -> Segment:
    """What the model wrote up to one of `STOPS`, its own end, or the bound on its tokens.

    The stop string is not part of the text. So a call is taken as closed if the model stopped within it, and other brackets that stand
    open then get their end back: "(see [f(x" was "(see [f(x)]".
    """
    before, opened, term = written.text.partition(OPENS)
    stopped = written.finish == "stop"
    if opened:
        sound = stopped and not re.search(r"[\n\[\]]", term)
        return Segment(before.rstrip(), term.strip(" \t\"'“”") if sound else "", ends=False)
    if stopped and _UNCLOSED.search(before):
        return Segment(before + STOPS[0], None, ends=False)
    return Segment(before, None, ends=stopped)
