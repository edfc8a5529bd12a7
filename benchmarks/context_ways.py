"""The ways in which `benchmarks.context_store` reads passages before a question: all at once, and from a store of keys and values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from generators.models.decoding import Writing
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prompt import PASSAGES
from generators.models.stitched.reader import Prepared, Reader
from generators.models.stitched.stitch import read, write
from generators.prompts import render
from rag.core.errors import PromptTooLong
from rag.core.types import Generation, Sampling
from retrievers.context.build import build
from retrievers.context.store import ContextStore
from retrievers.prompting import as_data, prompt_language

FULL, STITCHED, DISK = "full", "stitched", "disk"
SHARE = 0.15
"""Of the passages' tokens, computed again: CacheBlend's (Yao et al., EuroSys 2025, section 5)."""
RECOMPUTED = f"stitched+{SHARE:.0%}"
WAYS = (FULL, STITCHED, RECOMPUTED)
"""``disk`` writes what ``stitched`` does, from a store that keeps nothing in memory: for times alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the passages found for it, best first: every way is given the same. ``ids`` name them in the store."""

    question: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def message(self) -> str:
        """What the user says, with a mark where the passages stand."""
        return render("cited", prompt_language("auto", self.question), passages=PASSAGES, question=as_data(self.question))


class Ways:
    """Reads with the model of ``encoder``, all at once or from the store in ``folder``.

    The store holds ``contexts`` (id, text) with numbers as ``numbers`` says; what it lacks is encoded first. Raises what `build` does.
    """

    def __init__(self, encoder: LocalEncoder, folder: Path, contexts: Sequence[tuple[str, str]], numbers: str) -> None:
        build(folder, contexts, encoder, numbers, progress=_told)
        self.encoder = encoder
        identity, dtype = encoder.identity, encoder.decoder.dtype
        warm, cold = (ContextStore(folder, identity, ram_bytes=bytes, dtype=dtype) for bytes in (1 << 30, 0))
        self.store = warm
        self._readers = {STITCHED: Reader(encoder, warm), RECOMPUTED: Reader(encoder, warm, SHARE), DISK: Reader(encoder, cold)}

    def prepared(self, asked: Asked, max_tokens: int) -> Prepared:
        """The prompt as blocks. Raises `PromptTooLong` if no passage fits, `InputError` if the question does not."""
        return self._prepared(STITCHED, asked, max_tokens)

    def write(self, way: str, asked: Asked, max_tokens: int) -> Generation:
        """Answer greedily, reading the passages in this way. All ways read the same tokens. Raises as `prepared` does."""
        prepared = self._prepared(way, asked, max_tokens)
        row = Writing(prepared.tokens, Sampling(max_tokens))
        return self._all_at_once(prepared, row) if way == FULL else self._readers[way].answer(prepared, row)

    def first_tokens(self, asked: Asked, rounds: int) -> dict[str, list[float]]:
        """Seconds to the first token, of each way in each of ``rounds`` after one to warm up; the ways take turns, another one first.

        ``full`` is handed its tokens. What reads from a store fetches, checks and unpacks the passages within its time, and tokenises the
        question.
        """
        prepared = self.prepared(asked, 1)
        runs: dict[str, Callable[[], object]] = {FULL: lambda: self._all_at_once(prepared, Writing(prepared.tokens, Sampling(1)))}
        runs |= {way: partial(self.write, way, asked, 1) for way in (STITCHED, DISK, RECOMPUTED)}
        found: dict[str, list[float]] = {way: [] for way in runs}
        order = list(runs)
        for turn in range(rounds + 1):
            for way in (*order[turn % len(order) :], *order[: turn % len(order)]):
                started = time.perf_counter()
                runs[way]()
                if turn:  # the first warms up
                    found[way].append(time.perf_counter() - started)
        return found

    def _prepared(self, way: str, asked: Asked, max_tokens: int) -> Prepared:
        prepared = self._readers[STITCHED if way == FULL else way].prepare(asked.message, asked.ids, asked.texts, max_tokens)
        if not prepared.passages:
            raise PromptTooLong(f"not even one passage fits the window of {self.encoder.decoder.window} tokens: name a model with a larger")
        return prepared

    def _all_at_once(self, prepared: Prepared, row: Writing) -> Generation:
        from transformers import DynamicCache

        decoder, cache, tokens = self.encoder.decoder, DynamicCache(), prepared.tokens
        return write(decoder, cache, read(decoder, cache, tokens, 0)[-1], len(tokens), row)


def cut(encoder: LocalEncoder, text: str, tokens: int) -> str:
    """The beginning of ``text``, whole words of at most ``tokens`` tokens."""
    (ids,) = encoder.tokenised([text])
    if len(ids) <= tokens:
        return text
    words = str(encoder.decoder.tokenizer.decode(list(ids[:tokens]), skip_special_tokens=True)).split()[:-1]  # the last may be half of one
    while len(encoder.tokenised([" ".join(words)])[0]) > tokens:
        words.pop()
    return " ".join(words)


def gathered(asked: Iterable[Sequence[Asked]]) -> list[tuple[str, str]]:
    """The passages of all questions (id, text), each once."""
    return list({id: text for rows in asked for row in rows for id, text in zip(row.ids, row.texts, strict=True)}.items())


def _told(done: int, total: int) -> None:
    print(f"store: {done:,} of {total:,} passages encoded", flush=True)
