"""Contexts out of a store, a question for the decoder, an answer: the whole of it for one question, blocking."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from generators.decoupled.encoder import DecoupledEncoder
from generators.decoupled.memory import remember, write
from generators.models.decoding import Writing
from generators.models.stitched.reader import Contexts
from rag.core.types import Generation
from retrievers.context.encoded import Encoded
from retrievers.context.store import ContextStore, Miss


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the decoder attends to, and the ``question`` that it reads.

    ``reused`` counts the tokens that came from the store, ``misses`` are the contexts that did not.
    """

    contexts: tuple[Encoded, ...]
    question: tuple[int, ...]
    reused: int
    misses: tuple[Miss, ...]


class Reader:
    """``store`` is a folder, opened on first use for ``encoder``'s model, or an open store."""

    def __init__(self, encoder: DecoupledEncoder, store: str | Contexts) -> None:
        self.encoder = encoder
        self._store = store
        self._opening = threading.Lock()

    def prepare(self, question: str, ids: Sequence[str], texts: Sequence[str]) -> Prepared:
        """Fetch ``texts`` by their names ``ids``; what the store misses is encoded now, and kept in its memory.

        Raises `InputError` for a question without tokens, and what `ContextStore` raises when it is opened.
        """
        model, store = self.encoder.loaded, self._opened()
        found = store.get(ids, texts)
        contexts: list[Encoded] = []
        for one, id, text in zip(found, ids, texts, strict=True):
            if isinstance(one, Miss):
                started = time.perf_counter()
                (one,) = self.encoder.encode([text])
                store.keep(id, text, one, time.perf_counter() - started)
            contexts.append(one)
        misses = tuple(one for one in found if isinstance(one, Miss))
        reused = sum(len(one.tokens) for one in found if not isinstance(one, Miss))
        return Prepared(tuple(contexts), tuple(model.question(model.ids(question))), reused, misses)

    def answer(self, prepared: Prepared, row: Writing) -> Generation:
        """Continue the question by ``row``'s sampling; only the decoder runs."""
        return write(self.encoder.loaded, remember(self.encoder.loaded, prepared.contexts), row)

    def _opened(self) -> Contexts:
        with self._opening:
            if isinstance(self._store, str):
                model = self.encoder.loaded
                device = None if model.device.type == "cpu" else str(model.device)
                self._store = ContextStore(self._store, self.encoder.identity, device=device, dtype=model.dtype)
            return self._store
