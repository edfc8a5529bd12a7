"""A prompt of stored passages, read by a vLLM server that has the same store: this side knows only tokens."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from generators.models.stitched.decoder import tokenizer_hash
from generators.models.stitched.prompt import BETWEEN, PASSAGES, around_passages, too_long
from generators.models.token_prompt import TokenPrompt
from generators.models.tokens import PromptTokenizer, load_tokenizer
from generators.models.vllm import VLLM
from generators.models.vllm_contexts.certificate import check_certified
from generators.models.vllm_contexts.claims import FIELD
from generators.models.vllm_contexts.metrics import counted
from generators.models.vllm_contexts.scheduler import claim_for
from generators.models.vllm_contexts.shelves import FIXED
from generators.write import write
from rag.core.errors import ConfigError, CorpusMismatch, InputError
from rag.core.sync import run_sync
from rag.core.trace import listening, note
from rag.core.types import Generation, Sampling
from retrievers.context.encoded import token_hash
from retrievers.context.store import ContextStore

__all__ = ["PASSAGES", "ServedPrompt", "ServedReader"]


@dataclass(frozen=True, slots=True)
class ServedPrompt:
    """A prompt as blocks of tokens, ``question`` behind them; ``missing`` says which of its ``passages`` the store lacks."""

    blocks: tuple[tuple[int, ...], ...]
    question: tuple[int, ...]
    passages: int
    missing: tuple[str, ...]

    @property
    def tokens(self) -> list[int]:
        """The whole prompt."""
        return [*(token for block in self.blocks for token in block), *self.question]

    @property
    def borders(self) -> list[int]:
        """Where each block ends."""
        return list(accumulate(map(len, self.blocks)))

    @property
    def hits(self) -> int:
        """Passages that the server need not read: all or none."""
        return 0 if self.missing else self.passages

    @property
    def reused(self) -> int:
        """Tokens that it need not compute."""
        return 0 if self.missing else sum(map(len, self.blocks))

    @property
    def notes(self) -> list[str]:
        """A line for each that is missing."""
        return [f"{what} is not in the store, so the server reads the prompt in full" for what in self.missing]


class ServedReader:
    """``model`` is a `VLLM` with ``contexts``, whose server has the store in the folder ``store`` (`context_flags`).

    The tokenizer is the model's ``tokenizer``, or that of the folder or id from which the server says it has its model. Raises `InputError`
    if the model does not say that its server carries the connector.
    """

    def __init__(self, model: VLLM, store: str | ContextStore) -> None:
        if not model.contexts:
            raise InputError("Stitched: say VLLM(…, contexts=True) for a server that was started with a store (`rag serve --contexts`)")
        self.model = model
        self._claimed = _tenant(model.contexts)
        self._store = store
        self._lock = threading.Lock()
        self._opened: tuple[ContextStore, ContextStore | None, _Spelling] | None = None
        self._checked = False

    def prepare(self, message: str, ids: Sequence[str], texts: Sequence[str], max_tokens: int) -> ServedPrompt:
        """The prompt that has ``texts`` where ``message`` says `PASSAGES`; as many as leave room for ``max_tokens``, from the first on.

        Blocking. Raises `InputError` if the question does not fit by itself, `CorpusError` if the store cannot be opened, `CorpusMismatch`
        if it is that of a model with another tokenizer.
        """
        main, fixed, spelling = self._open()
        before, question = around_passages(spelling, message)  # type: ignore[arg-type] # it asks for tokenizer and name alone
        between = spelling.ids(BETWEEN)
        room = self.model.window - max_tokens - len(before) - len(question)
        if room < 0:
            raise too_long(self.model, len(before) + len(question), max_tokens)  # type: ignore[arg-type] # window and name alone
        blocks: list[tuple[int, ...]] = [tuple(before)] if before else []
        kept, missing = 0, []
        known, around = main.state().spelt, fixed.state().spelt if fixed is not None else {}
        for id, text in zip(ids, texts, strict=True):
            tokens = spelling.ids(text)
            room -= len(tokens) + (len(between) if kept else 0)
            if room < 0:
                break
            if token_hash(tokens) not in known:
                missing.append(f"passage '{id}'")
            blocks += [between, tokens] if kept else [tokens]
            kept += 1
        for block in (tuple(before), between) if kept > 1 else (tuple(before),):
            if block and token_hash(block) not in around:
                missing.append("what stands around the passages")
                break
        return ServedPrompt(tuple(blocks), tuple(question), kept, tuple(missing))

    async def written(self, prompt: ServedPrompt, sampling: Sampling) -> Generation:
        """Let the server continue it; each piece goes out as it comes if someone listens.

        Raises `ConfigError` before the first one if its server has no connector or the store no certificate for it, `CorpusMismatch` if it
        has another store, and what `VLLM` raises.
        """
        await self.check()
        asked: Any = TokenPrompt(prompt.tokens, {"kv_transfer_params": claim_for(prompt.borders, *self._claimant())})
        generation = await write(self.model, asked, sampling)
        if not listening():  # a stream does not tell
            self._remark(prompt, asked.told)
        return generation

    async def check(self) -> None:
        """Raise `ConfigError` or `CorpusMismatch`, as `written` says; asked once, unless a server stops saying what it loads."""
        if self._checked:
            return
        main, _, _ = await asyncio.to_thread(self._open)
        server = counted(await self.model.ametrics())
        check_certified(main.folder, main.model, server, self.model.url, self.model.adapter)
        self._checked = True

    def _remark(self, prompt: ServedPrompt, answer: Any) -> None:
        told = answer.get(FIELD) if isinstance(answer, Mapping) else None
        if not isinstance(told, Mapping):
            self._checked = False
            note("the server read the prompt in full: it was started without contexts since it was asked")
        elif told.get("fallback") and not prompt.missing:
            note(f"the server read the prompt in full: {str(told['fallback'])[:40]}")

    def _open(self) -> tuple[ContextStore, ContextStore | None, _Spelling]:
        with self._lock:
            if self._opened is None:
                main = self._store if isinstance(self._store, ContextStore) else ContextStore(self._store, ram_bytes=0)
                fixed = ContextStore(main.folder / FIXED, main.model, ram_bytes=0) if (main.folder / FIXED).is_dir() else None
                name = self.model.tokenizer or _root(run_sync(self.model.acards()))
                self._opened = main, fixed, _Spelling(name, main)
            return self._opened

    def _claimant(self) -> tuple[str | None, str | None]:
        tenant, variable = self._claimed
        if variable is None:
            return None, None
        key = os.environ.get(variable, "").strip()
        if not key:
            raise ConfigError(f"the environment variable {variable}, which should hold the key of the tenant {tenant!r}, is not set")
        return tenant, key


class _Spelling:
    """The tokenizer ``name``, which must be that of the store. Thread-safe."""

    def __init__(self, name: str, store: ContextStore) -> None:
        self.name = name
        self.tokenizer = load_tokenizer(name)
        if tokenizer_hash(self.tokenizer) != store.model.tokenizer:
            raise CorpusMismatch(
                f"{store.folder}: its passages were encoded with another tokenizer than '{name}'; give the server's model its own store, or"
                " name the tokenizer of the store's model: VLLM(…, tokenizer=…)"
            )
        self._tokens = PromptTokenizer(self.tokenizer, name)

    def ids(self, text: str) -> tuple[int, ...]:
        """The bare tokens of ``text``."""
        return tuple(self._tokens.ids(text, special=False))


def _root(cards: Sequence[Any]) -> str:
    """Where the server has its model from."""
    root = next((str(card.get("root") or "") for card in cards if not card.get("parent")), "")
    if not root:
        raise ConfigError("the server does not say which model it serves: name its tokenizer, VLLM(…, tokenizer=…)")
    return root


def _tenant(contexts: bool | Mapping[str, str]) -> tuple[str | None, str | None]:
    if contexts is True:
        return None, None
    if not isinstance(contexts, Mapping) or set(contexts) != {"tenant", "key_env"} or not all(map(str, contexts.values())):
        raise InputError('VLLM: contexts is True, or {"tenant": NAME, "key_env": NAME OF AN ENVIRONMENT VARIABLE WITH ITS KEY}')
    return str(contexts["tenant"]), str(contexts["key_env"])
