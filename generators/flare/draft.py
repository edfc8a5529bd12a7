"""An answer while it is being written: what stands so far, and which documents the model has been shown for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from generators.continuing import begun
from generators.passages import passage_data
from generators.retrieval import append
from generators.write import count_confidence, most_that_fit
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel
from rag.core.trace import TextDelta, emit, note
from rag.core.types import Answer, Generation, Hit, Message, Prompt, Sampling, Token

_SPACED = re.compile(r"[^\s\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]")
"""A character of a script that puts spaces between words; Chinese and its punctuation are none."""


class Draft:
    """Begins empty. ``chat_with(passages)`` is the chat that asks for the answer; ``passages`` is empty where no document is shown.

    A document keeps its number for the whole answer, so that a "[2]" in the text is ``sources[1]`` wherever it was written.
    """

    def __init__(self, model: LanguageModel, chat_with: Callable[[str], Sequence[Message]], max_tokens: int) -> None:
        self.text = ""
        self.ended = False
        self._model = model
        self._chat_with = chat_with
        self._max_tokens = max_tokens
        self._spent = 0
        self._sources: list[Hit] = []
        self._notes: list[str] = []

    @property
    def room(self) -> int:
        """Tokens that may still be written; the draft ends when there are none."""
        return self._max_tokens - self._spent

    async def show(self, hits: Sequence[Hit]) -> list[Hit]:
        """Those of ``hits`` that fit the model's window beside the rest of the answer; they become sources.

        Raises `InputError` if the question alone does not fit.
        """
        try:
            kept = await most_that_fit(self._model, lambda n: self._prompt(hits[:n]), len(hits), self.room)
        except InputError:
            if not self.text:
                raise
            kept = 0  # a model that only estimates may count more for the text than it had room for
        if kept < len(hits):
            names = ", ".join(f"'{hit.passage.id}'" for hit in hits[kept:])
            self.remark(
                f"dropped {names}: the prompt would pass the window of {self._model.window} tokens (what is left to write included)"
            )
        self._sources = self._numbered(hits[:kept])
        return list(hits[:kept])

    async def ahead(self, documents: Sequence[Hit], sampling: Sampling) -> Generation:
        """How the model would go on with ``documents`` in front of the question. The draft stays as it is."""
        return await self._model.agenerate(self._prompt(documents), sampling)

    def accept(self, text: str, spent: int, tokens: Sequence[Token] = ()) -> None:
        """Append ``text``, for which ``spent`` tokens were written; whoever listens hears it.

        A model that cannot continue a text begins anew, without the space: it is put back.
        """
        self._spent += spent
        if text:
            if "prefix" not in self._model.capabilities and all(map(_SPACED.match, (self.text[-1:], text))):
                text = " " + text
            self.text += text
            count_confidence(tokens)
            emit(TextDelta(text))
        if self.room <= 0 and not self.ended:
            self.ended = True
            self.remark(f"the answer was cut off at max_tokens={self._max_tokens}")

    def end(self) -> None:
        """The model has nothing to add."""
        self.ended = True

    def remark(self, text: str) -> None:
        """Tell the reader of the answer, and the trace."""
        note(text)
        self._notes.append(text)

    def answer(self) -> Answer:
        """The finished answer."""
        if not self._sources:
            self.remark("no document was shown: the answer is what the model knows by itself")
        if not self.text.strip():
            self.remark("the model wrote no text")
        return Answer(self.text, sources=tuple(self._sources), notes=tuple(self._notes))

    def _prompt(self, documents: Sequence[Hit]) -> Prompt:
        number = {hit.passage.id: hit.rank for hit in self._numbered(documents)}
        passages = "\n\n".join(f"[{number[hit.passage.id]}] {passage_data(hit.passage)}" for hit in documents)
        return begun(self._model, self._chat_with(passages), self.text)

    def _numbered(self, documents: Sequence[Hit]) -> list[Hit]:
        return append(self._sources, documents, len(self._sources) + len(documents))
