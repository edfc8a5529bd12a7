"""Passages out of a store, a question behind them, an answer: the whole of stitching for one prompt, blocking."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from generators.models.decoding import Writing
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prompt import BETWEEN, around_passages, too_long
from generators.models.stitched.recompute import link_block, recomputed
from generators.models.stitched.stitch import Placed, in_a_row, read, stitch, write
from rag.core.types import Generation
from retrievers.context.encoded import Encoded
from retrievers.context.store import ContextStore, Miss


@runtime_checkable
class Contexts(Protocol):
    """Where encoded passages come from: a `ContextStore`, or what offers the same."""

    def get(self, ids: Sequence[str], texts: Sequence[str]) -> list[Encoded | Miss]:
        """What is kept of each passage, or why it has to be encoded now."""
        ...

    def keep(self, id: str, text: str, encoded: Encoded, seconds: float) -> None:
        """Take a passage that was just encoded, which took ``seconds``."""
        ...


class Ready(Protocol):
    """A prompt that only has to be answered."""

    @property
    def tokens(self) -> list[int]:
        """The whole prompt."""
        ...

    @property
    def passages(self) -> int:
        """How many of those given are in it."""
        ...

    @property
    def hits(self) -> int:
        """How many of these were read before."""
        ...

    @property
    def reused(self) -> int:
        """Tokens that need not be computed."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What the trace should tell of making it ready."""
        ...


class Reads(Protocol):
    """Makes prompts of passages ready, and answers them: `Reader`, or `prefix.PrefixReader`."""

    def prepare(self, message: str, ids: Sequence[str], texts: Sequence[str], max_tokens: int) -> Ready:
        """The prompt that has ``texts`` where ``message`` says `PASSAGES`; as many as leave room for ``max_tokens``, from the first on."""
        ...

    def answer(self, prepared: Any, row: Writing) -> Generation:
        """Continue by ``row``'s sampling what it made ready itself."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt as blocks at their places, ``question`` behind them; ``passages`` says how many of those given are in it.

    ``reused`` counts the tokens that came from the store, ``misses`` are the passages that did not. ``links`` stand behind each passage.
    """

    blocks: tuple[Placed, ...]
    question: tuple[int, ...]
    passages: int
    reused: int
    misses: tuple[Miss, ...]
    links: tuple[int, ...] = ()

    @property
    def hits(self) -> int:
        """Passages that came from the store."""
        return self.passages - len(self.misses)

    @property
    def notes(self) -> list[str]:
        """A line for each miss."""
        return [f"passage '{one.id}' was encoded now: {one.reason}{f' ({one.detail})' if one.detail else ''}" for one in self.misses]

    @property
    def start(self) -> int:
        """Where the question stands: behind all blocks."""
        return self.blocks[-1].end if self.blocks else 0

    @property
    def tokens(self) -> list[int]:
        """The whole prompt, but for link tokens: they are no text."""
        texts = [block.encoded.tokens for block in self.blocks if block.encoded.tokens != self.links]
        return [*(token for text in texts for token in text), *self.question]


class Reader:
    """``store`` is a folder, opened on first use for ``encoder``'s model, or an open store; ``share`` is that of `recomputed`."""

    def __init__(self, encoder: LocalEncoder, store: str | Contexts, share: float = 0.0) -> None:
        self.encoder = encoder
        self._store = store
        self._share = share
        self._opening = threading.Lock()
        self._fixed: dict[tuple[int, ...], Encoded] = {}  # the template's beginning and what stands between passages

    def prepare(self, message: str, ids: Sequence[str], texts: Sequence[str], max_tokens: int) -> Prepared:
        """The prompt that has ``texts`` where ``message`` says `PASSAGES`; as many as leave room for ``max_tokens``, from the first on.

        ``ids`` are their names in the store. What the store misses is encoded now, and kept in its memory. Raises `InputError` if the
        question does not fit by itself, and what `ContextStore` raises when it is opened.
        """
        decoder, store = self.encoder.decoder, self._opened()
        before, question = around_passages(decoder, message)
        (between,) = self.encoder.tokenised([BETWEEN])
        found = store.get(ids, texts)
        lengths = [
            (len(self.encoder.tokenised([text])[0]) if isinstance(one, Miss) else len(one.tokens)) + len(decoder.links)
            for one, text in zip(found, texts, strict=True)
        ]
        room = decoder.window - max_tokens - len(before) - len(question)
        if room < 0:
            raise too_long(decoder, len(before) + len(question), max_tokens)
        kept, taken = 0, 0
        while kept < len(lengths) and (taken := taken + lengths[kept] + (len(between) if kept else 0)) <= room:
            kept += 1
        misses = tuple(one for one in found[:kept] if isinstance(one, Miss))
        passages = self._completed(store, found[:kept], ids, texts)
        blocks, links = [self._of(before)] if before else [], [link_block(decoder)] if decoder.links else []
        for number, passage in enumerate(passages):
            blocks += [self._of(between), passage, *links] if number else [passage, *links]
        reused = sum(len(one.tokens) for one in found[:kept] if not isinstance(one, Miss))
        return Prepared(tuple(in_a_row(blocks)), tuple(question), kept, reused, misses, decoder.links)

    def answer(self, prepared: Prepared, row: Writing) -> Generation:
        """Continue the prompt by ``row``'s sampling; only the question is computed, link tokens, and the share that is computed again."""
        decoder = self.encoder.decoder
        if self._share > 0 or decoder.links:
            cache, logits = recomputed(decoder, prepared.blocks, prepared.question, prepared.start, self._share)
        else:
            cache = stitch(decoder, prepared.blocks)
            logits = read(decoder, cache, prepared.question, prepared.start)
        return write(decoder, cache, logits[-1], prepared.start + len(prepared.question), row)

    def _completed(self, store: Contexts, found: Sequence[Encoded | Miss], ids: Sequence[str], texts: Sequence[str]) -> list[Encoded]:
        missing = [place for place, one in enumerate(found) if isinstance(one, Miss)]
        if not missing:
            return [one for one in found if not isinstance(one, Miss)]
        started = time.perf_counter()
        encoded = dict(zip(missing, self.encoder.encode([texts[place] for place in missing]), strict=True))
        seconds = time.perf_counter() - started
        total = sum(len(one.tokens) for one in encoded.values())
        for place, one in encoded.items():
            store.keep(ids[place], texts[place], one, seconds * len(one.tokens) / total)
        return [encoded[place] if isinstance(one, Miss) else one for place, one in enumerate(found)]

    def _of(self, tokens: Sequence[int]) -> Encoded:
        key = tuple(tokens)
        if key not in self._fixed:
            self._fixed[key] = self.encoder.encode_tokens([key])[0]
        return self._fixed[key]

    def _opened(self) -> Contexts:
        with self._opening:
            if isinstance(self._store, str):
                decoder = self.encoder.decoder
                device = None if decoder.device.type == "cpu" else str(decoder.device)
                self._store = ContextStore(self._store, self.encoder.identity, device=device, dtype=decoder.dtype)
            return self._store
