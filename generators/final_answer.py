"""The short answer at the end of a chain of thought."""

from __future__ import annotations

import re
from dataclasses import replace

from rag.core.registry import component
from rag.core.trace import note
from rag.core.types import Answer

_MARKER = re.compile(
    r"(?:the (?:final )?answer(?: to the question)? is(?: that)?|final answer:|answer:)[ :]*|(?:最终)?答案(?:是|为|：|:)[ ：:]*",
    re.IGNORECASE,
)
_ENDS = " \t\n\"'“”*.。"


def final_answer(text: str) -> str | None:
    """What follows the last "So the answer is", up to the end of its line, without quotes and full stop; None if there is none."""
    found = list(_MARKER.finditer(text))
    answer = text[found[-1].end() :].strip(_ENDS).split("\n", 1)[0].strip(_ENDS) if found else ""
    return answer or None


@component
class FinalAnswer:
    """Keeps of an answer what follows its last "So the answer is", as papers score chains of thought; the whole text if nothing does."""

    def run(self, answer: Answer) -> Answer:
        """``answer`` with the short text. Citations point into the long text, so they go; the sources stay."""
        short = final_answer(answer.text)
        if short is None:
            note("the answer does not say 'the answer is'; kept whole")
            return answer
        return replace(answer, text=short, citations=())
