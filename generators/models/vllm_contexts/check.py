"""The equality gate: whether a server answers from a store as the block mask does, tried before anyone relies on it."""

from __future__ import annotations

import datetime
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from generators.models.decoding import Writing
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prompt import BETWEEN, PASSAGES, around_passages
from generators.models.stitched.reference import joint
from generators.models.stitched.stitch import in_a_row, read, stitch, write
from generators.models.token_prompt import TokenPrompt
from generators.models.vllm import VLLM
from generators.models.vllm_contexts.certificate import Certificate, certify, check_served, label_of
from generators.models.vllm_contexts.claims import FIELD
from generators.models.vllm_contexts.metrics import counted
from generators.models.vllm_contexts.scheduler import claim_for
from generators.models.vllm_contexts.shelves import FIXED
from generators.prompts import render
from rag.core.errors import ConfigError, InputError, ModelError
from rag.core.types import Generation, Sampling
from retrievers.context.encoded import Encoded, token_hash
from retrievers.context.store import ContextStore, Miss

EXACT = 1e-3
"""Allowed between log-probabilities of a float32 server and the reference."""
ROUNDED = 2
"""Times its own error in ordinary reading that a server of another dtype may be off: reading from a store is another rounding."""
APART = 2
"""Times the tolerance by which ordinary reading must differ in one prompt at least: else the prompts could not tell the two."""
_RANKED = 20
_WRITTEN = 24
_MOST = 5
_ROOM = 1_000
"""Tokens of passages in a prompt, about."""
_QUESTION = "What do the passages say?"


class Unequal(ModelError):
    """A server does not answer from a store as it should."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One prompt: which passages in which order, and the largest differences of log-probabilities of the first token."""

    passages: tuple[str, ...]
    tokens: int
    difference: float
    """The server's and the reference's, over the same stored numbers."""
    numbers: float
    """What the store's number format adds to the reference."""
    apart: float
    """The reference's and ordinary reading's."""
    plain: float
    """The server's and the reference's where both read in full: what the server's own numbers cost."""
    same_text: bool


class Gate:
    """Tries the store at ``path`` on the server of ``model``; ``encoder`` is the store's model, in float32 in this process.

    Both wear the adapter of the store, if it has one. Raises what `ContextStore` does, and `CorpusMismatch` for another model's store.
    """

    def __init__(self, path: Path, model: VLLM, encoder: LocalEncoder) -> None:
        self._model, self._encoder, self._path = model, encoder, path
        self._store = ContextStore(path, encoder.identity, ram_bytes=0)
        if not (path / FIXED).is_dir():
            raise ConfigError(f"{path}: an earlier version built this store, without what stands around passages: build another one")
        self._fixed = ContextStore(path / FIXED, encoder.identity, ram_bytes=0)
        before, self._question = around_passages(encoder.decoder, render("cited", "en", passages=PASSAGES, question=_QUESTION))
        self._before = tuple(before)
        self._between = encoder.tokenised([BETWEEN])[0]

    async def run(self, orders: int = 4, seed: int = 0, told: Callable[[Tried], None] | None = None) -> Certificate:
        """Try ``orders`` orders of passages, and keep the certificate beside the store.

        Raises `ConfigError` or `CorpusMismatch` if the server does not load this store, `Unequal` with what differs if it fails.
        """
        server = counted(await self._model.ametrics())
        check_served(self._path, self._store.model, server, self._model.url)
        loaded = server.tokens
        tried = []
        for names in self._orders(orders, random.Random(seed)):
            tried.append(await self._try(names))
            loaded += 2 * tried[-1].tokens  # once for the first token's log-probabilities, once for the text
            if told is not None:
                told(tried[-1])
        now = counted(await self._model.ametrics())
        if now.tokens < loaded:
            raise Unequal(
                f"{self._model.url} counts {now.tokens - server.tokens} loaded tokens where {loaded - server.tokens} were asked for: its"
                " answers were not read from the store"
            )
        tolerance = EXACT if server.dtype == "float32" else max(EXACT, *(ROUNDED * one.plain for one in tried))
        self._judge(tried, tolerance, server.dtype == "float32")
        certificate = Certificate(
            version=str(server.version),
            dtype=str(server.dtype),
            identity=label_of(self._store.model),
            numbers=self._store.numbers.name,
            difference=max(one.difference for one in tried),
            tolerance=tolerance,
            numbers_difference=max(one.numbers for one in tried),
            prompts=len(tried),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        certify(self._path, certificate)
        return certificate

    def _judge(self, tried: Sequence[Tried], tolerance: float, exact: bool) -> None:
        worst = max(tried, key=lambda one: one.difference)
        if worst.difference > tolerance:
            raise Unequal(
                f"the server's answer to the passages {', '.join(worst.passages)} is off by {worst.difference:.2g} in log-probability, and"
                f" {tolerance:.2g} is allowed: do not use this store with this server"
            )
        if exact and (other := next((one for one in tried if not one.same_text), None)):
            raise Unequal(f"the server writes another text than the reference from the passages {', '.join(other.passages)}")
        if max(one.apart for one in tried) < APART * tolerance:
            raise Unequal(
                f"ordinary reading differs by no more than {max(one.apart for one in tried):.2g} from reading these passages apart, and"
                f" {tolerance:.2g} is allowed, so nothing is proved; try more orders, or a store with longer passages"
            )

    async def _try(self, names: Sequence[str]) -> Tried:
        decoder, blocks = self._encoder.decoder, [self._before] if self._before else []
        for number, name in enumerate(names):
            blocks += [self._between] if number else []
            blocks.append(self._tokens(name))
        stored = [self._stored(block) for block in blocks]
        start, ids = sum(map(len, blocks)), [token for block in blocks for token in block] + self._question
        cache = stitch(decoder, in_a_row(stored))
        logits = read(decoder, cache, self._question, start)[-1]
        expected = write(decoder, cache, logits, len(ids), Writing(ids, Sampling(_WRITTEN, logprobs=0)))
        reference = logits.float().log_softmax(-1)
        masked = joint(decoder, [*blocks, self._question])[-1].float().log_softmax(-1)
        full = joint(decoder, [ids])[-1].float().log_softmax(-1)
        claim = claim_for(list(accumulate(map(len, blocks))))
        first, plain = Sampling(1, logprobs=_RANKED), Sampling(_WRITTEN, logprobs=0)
        answer = await self._asked(ids, {"kv_transfer_params": claim}, first, start)
        text = await self._asked(ids, {"kv_transfer_params": claim}, plain, start)
        ordinary = await self._asked(ids, {}, first)
        return Tried(
            tuple(names),
            start,
            _off(answer, reference),
            float((reference - masked).abs()[_ranked(answer)].max()),
            float((full - reference).abs()[_ranked(answer)].max()),
            _off(ordinary, full),
            _words(text, decoder.ends) == _words(expected, decoder.ends),
        )

    async def _asked(self, ids: list[int], params: dict[str, Any], sampling: Sampling, start: int | None = None) -> Generation:
        """What the server writes, of what it has not kept. Raises `Unequal` unless it loads ``start`` tokens."""
        prompt = TokenPrompt(ids, {**params, "cache_salt": secrets.token_hex(8)})
        generation = await self._model.agenerate(prompt, sampling)
        told = (prompt.told or {}).get(FIELD) if isinstance(prompt.told, dict) else None
        if start is not None and (not isinstance(told, dict) or told.get("loaded") != start):
            reason = told.get("fallback") if isinstance(told, dict) else "it says nothing of contexts"
            raise Unequal(f"{self._model.url} did not load {start} tokens from the store ({reason}); `rag contexts verify` finds damage")
        return generation

    def _orders(self, number: int, chance: random.Random) -> list[tuple[str, ...]]:
        """Passages of the store by id, several a prompt, shuffled."""
        entries = {id: segment.entries[row].tokens for id, (segment, row) in self._store.state().places.items()}
        room = min(_ROOM, min(self._model.window, self._encoder.decoder.window) - len(self._before) - len(self._question) - _WRITTEN)
        short = sorted((id for id, tokens in entries.items() if tokens <= room // 2), key=lambda id: (entries[id], id))[-200:]
        if len(short) < 2:
            raise InputError(
                f"{self._path}: two passages that fit a prompt of {room} tokens are needed to try anything; it has {len(short)}"
            )
        found = []
        for turn in range(max(1, number)):
            chance.shuffle(short)
            taken: list[str] = []
            left = room
            for id in short[: 2 + turn % (_MOST - 1)]:
                left -= entries[id] + len(self._between)
                if left < 0 and len(taken) > 1:
                    break
                taken.append(id)
            found.append(tuple(taken))
        return found

    def _tokens(self, id: str) -> tuple[int, ...]:
        segment, row = self._store.state().places[id]
        return tuple(segment.load(row)["tokens"].tolist())

    def _stored(self, block: Sequence[int]) -> Encoded:
        spelling = token_hash(block)
        for store in (self._store, self._fixed):
            found = store.spelt(spelling)
            if not isinstance(found, Miss):
                return found
        raise ConfigError(f"{self._path}: what stands around passages, or one of them, is missing; run `rag contexts build` again")


def _words(answer: Generation, ends: frozenset[int]) -> list[int]:
    """The tokens that were written, but for the one that ends a text."""
    return [token.id for token in answer.tokens if token.id not in ends]


def _ranked(answer: Generation) -> torch.Tensor:
    return torch.tensor([token for token, _, _ in answer.tokens[0].top])


def _off(answer: Generation, reference: torch.Tensor) -> float:
    return max(abs(logprob - float(reference[token])) for token, _, logprob in answer.tokens[0].top)
