"""An answer in the making, as its reader sees it and as the model does: with the calls."""

from __future__ import annotations

from generators.toolformer.calls import Call
from generators.write import count_confidence, remarks
from rag.core.trace import TextDelta, count, emit, note
from rag.core.types import Answer, Generation, Hit


class Draft:
    """Grows piece by piece; each accepted piece goes out as a `TextDelta`. ``left`` counts down from ``max_tokens``, calls left aside."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.left = max_tokens
        self.text = ""
        self.context = ""
        self.made: list[Call] = []
        self.sources: list[Hit] = []
        self.notes: list[str] = []

    @property
    def calls(self) -> int:
        """Calls whose results stand in the text."""
        return len(self.made)

    def accept(self, ahead: Generation, tokens: int) -> None:
        """Take the first ``tokens`` of what the model wrote ahead."""
        self.left -= tokens
        count_confidence(ahead.tokens[:tokens])
        end = ahead.tokens[tokens].start if tokens < len(ahead.tokens) else len(ahead.text)
        self._show(ahead.text[:end])
        self.context += ahead.text[:end]

    def end(self, ahead: Generation) -> None:
        """Take all of it: the answer ends here."""
        self.accept(ahead, len(ahead.tokens))
        if self.text.strip():
            self.notes += remarks(ahead, self.max_tokens) if ahead.finish == "length" else []

    def insert(self, call: Call, span: str, shown: bool) -> None:
        """Put a call with its result into what the model reads, and into what the reader sees if it is ``shown``."""
        self.made.append(call)
        self.context += span
        count(inserted=1)
        if shown:
            self._show(span)

    def drop(self, why: str) -> bool:
        """Say that a call was not inserted; always False."""
        self.remark(f"a call was dropped, and no other may follow: {why}")
        return False

    def remark(self, text: str) -> None:
        """Leave a remark for the trace and the reader, once."""
        if text not in self.notes:
            self.notes.append(text)
            note(text)

    def answer(self) -> Answer:
        """What has been written."""
        if not self.text.strip():
            self.remark("the model wrote no text")
        return Answer(self.text, sources=tuple(self.sources), notes=tuple(self.notes))

    def _show(self, piece: str) -> None:
        self.text += piece
        if piece:
            emit(TextDelta(piece))
