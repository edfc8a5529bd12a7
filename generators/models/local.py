"""A model in this process, through transformers: nothing to start, for trying things, tests and small models."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from generators.models.calling import called, streamed
from generators.models.checks import check_scored, check_text, checked, fitted, parted
from generators.models.decoding import Engine, Reading, Writing
from generators.models.loading import load_decoder
from generators.models.together import together
from generators.models.tokens import PromptTokenizer
from rag.core.batcher import Batcher
from rag.core.errors import InputError
from rag.core.registry import component
from rag.core.sync import iterate_sync, run_sync
from rag.core.trace import count
from rag.core.types import Generation, Prompt, Sampling

_DTYPES = ("float32", "bfloat16", "float16", "auto")


@component
class Local:
    """Loads ``model`` on first use: ``"smollm2"`` (embedded, no network), a folder, or a Hugging Face id.

    ``adapter`` is what it wears: a folder, or a name in the registry; `with_adapter` changes it for a twin that shares the weights. Calls
    of all twins may be in flight together; each batch has one adapter.

    ``dtype`` is float32, bfloat16, float16 or "auto" (as stored); ``device`` is "auto" (a GPU if there is one), "cpu", "cuda:0", …

    Calls in flight are gathered into batches of at most ``max_batch`` prompts; each row keeps its own sampling, and greedy text depends on
    the company in the batch only through float rounding. Log-probabilities are those of the model's own distribution, before bias,
    penalties, temperature and top_p. ``max_tokens`` is cut to what the window leaves; `PromptTooLong` if that is nothing.
    """

    def __init__(
        self, model: str = "smollm2", adapter: str | None = None, dtype: str = "float32", device: str = "auto", max_batch: int = 16
    ) -> None:
        if dtype not in _DTYPES:
            raise InputError(f"dtype is one of {', '.join(_DTYPES)}, not {dtype!r}")
        self.model = model
        self.adapter = adapter
        self.dtype = dtype
        self.device = device
        self.max_batch = max_batch
        self._shared = _Shared(model, dtype, device, max_batch)

    @property
    def name(self) -> str:
        """The adapter's name if one is worn, else what the model was asked for as."""
        return self.adapter or self.model

    @property
    def window(self) -> int:
        """Tokens that prompt and generation may hold together, from the model's configuration (which loads the model)."""
        return self._shared.loaded().window

    @property
    def capabilities(self) -> frozenset[str]:
        """All there are."""
        return frozenset({"logprobs", "score", "logit_bias", "token_ids", "prefix", "adapters"})

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        """Write one continuation of ``prompt``."""
        return await called("chat", "local", self.name, self._generated(prompt, sampling), sampling)

    async def _generated(self, prompt: Prompt, sampling: Sampling) -> Generation:
        writing = await self._writing(prompt, sampling)
        try:
            generation = await self._shared.batcher(writing)
        finally:
            writing.cancelled = True  # ends the row early if it was this call that was cancelled
        count(calls=1, prompt_tokens=generation.prompt_tokens, generated_tokens=generation.generated_tokens)
        return generation

    async def astream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        """Yield text pieces as they are written and, last, the `Generation`; the pieces join to its text."""
        async with aclosing(streamed("local", self.name, self._pieces(prompt, sampling), sampling)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str | Generation, None]:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def hear(piece: str) -> None:  # in the batcher's thread
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:  # the listener's loop has ended
                writing.cancelled = True

        def ended(task: asyncio.Task[Generation]) -> None:
            pieces.put_nowait(None)
            if not task.cancelled():
                task.exception()  # it is raised below, or nobody listens any more

        writing = await self._writing(prompt, sampling, hear)
        task = asyncio.ensure_future(self._shared.batcher(writing))
        task.add_done_callback(ended)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            generation = await task
        finally:
            writing.cancelled = True
            task.cancel()
            count(calls=1, prompt_tokens=len(writing.ids), generated_tokens=writing.written)
        yield generation

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        """Log-likelihood of ``continuation`` after ``prompt``: its tokens, their log-probabilities and their offsets in it.

        Prompt and continuation are tokenised apart and joined, so a token never spans the boundary: begin the continuation with the space
        that belongs to its first word.
        """
        checked(prompt)
        check_text(continuation, "the continuation")
        return await called("score", "local", self.name, self._scored(prompt, continuation))

    async def _scored(self, prompt: Prompt, continuation: str) -> Generation:
        parts = await self._shared.ready()
        before, after = self._encode(prompt), self._encode(continuation, special=False)
        check_scored(len(before) + len(after), parts.window, self.name)
        generation = await self._shared.batcher(Reading(before, after, continuation, self.adapter))
        count(calls=1, prompt_tokens=len(before) + len(after), generated_tokens=0)
        return generation

    async def acount(self, prompt: Prompt) -> int:
        """Tokens that ``prompt`` takes, the chat template included."""
        checked(prompt)
        await self._shared.ready()
        return len(self._encode(prompt))

    async def aencode(self, text: str) -> list[int]:
        """The ids of ``text`` as the model would write it, without special tokens."""
        check_text(text, "the text")
        await self._shared.ready()
        return self._encode(text, special=False)

    def generate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        """Blocking twin of `agenerate`."""
        return run_sync(self.agenerate(prompt, sampling))

    def generate_many(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Generation]:
        """Write one continuation of each prompt, in batches; the first error stops the rest."""
        return run_sync(together(self.agenerate(prompt, sampling) for prompt in prompts))

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str | Generation]:
        """Blocking twin of `astream`."""
        return iterate_sync(self.astream(prompt, sampling))

    def score(self, prompt: Prompt, continuation: str) -> Generation:
        """Blocking twin of `ascore`."""
        return run_sync(self.ascore(prompt, continuation))

    def count(self, prompt: Prompt) -> int:
        """Blocking twin of `acount`."""
        return run_sync(self.acount(prompt))

    def with_adapter(self, name: str | None) -> Local:
        """The same model wearing the adapter ``name`` (a folder, or a name in the registry; None: bare), over the same weights.

        Whether the adapter is there and fits shows at the first call: `AdapterError` and its kin.
        """
        other = copy.copy(self)
        other.adapter = name
        return other

    async def _writing(self, prompt: Prompt, sampling: Sampling, listener: Any = None) -> Writing:
        checked(prompt, sampling)
        parts = await self._shared.ready()
        for token in (*sampling.logit_bias, *sampling.logprob_ids):
            if token >= parts.vocabulary:
                raise InputError(
                    f"logit_bias or logprob_ids names the token {token}; {self.name} has the tokens 0 to {parts.vocabulary - 1}"
                )
        ids = self._encode(prompt)
        return Writing(ids, fitted(sampling, len(ids), parts.window, self.name), listener, self.adapter)

    def _encode(self, prompt: Prompt, special: bool = True) -> list[int]:
        chat, beginning = parted(prompt)
        if beginning:  # tokens apart, as the model itself would have written them behind the template
            return [*self._encode(chat), *self._encode(beginning, special=False)]
        return self._shared.loaded().tokens.ids(chat, special)


class _Shared:
    """The weights, and the worker that runs them, of a `Local` and its twins with other adapters."""

    def __init__(self, model: str, dtype: str, device: str, max_batch: int) -> None:
        self.batcher: Batcher[Writing | Reading, Generation] = Batcher(
            self._work, max_batch=max_batch, name="local model", key=lambda job: (type(job), job.adapter)
        )
        self._wanted = (model, dtype, device)
        self._loading = threading.Lock()
        self._parts: _Parts | None = None
        # All who wait for the weights share one thread: parked one each, they would use up those of the event loop.
        self._loader: Batcher[None, _Parts] = Batcher(lambda waiting: [self.loaded()] * len(waiting), name="model loader")

    async def ready(self) -> _Parts:
        """The loaded model."""
        return self._parts or await self._loader(None)

    def loaded(self) -> _Parts:
        """The same, blocking."""
        with self._loading:
            if self._parts is None:
                self._parts = _load(*self._wanted)
            return self._parts

    def _work(self, jobs: list[Writing | Reading]) -> list[Generation]:
        return self.loaded().engine.work(jobs)


class _Parts:
    """A loaded model, its tokenizer, and what is read from its configuration."""

    def __init__(self, engine: Engine, tokens: PromptTokenizer, window: int, vocabulary: int) -> None:
        self.engine = engine
        self.tokens = tokens
        self.window = window
        self.vocabulary = vocabulary


def _load(name: str, dtype: str, device: str) -> _Parts:
    model, tokenizer = load_decoder(name, dtype, device)
    config = model.config.get_text_config()
    window = int(getattr(config, "max_position_embeddings", 0) or tokenizer.model_max_length)
    return _Parts(Engine(model, tokenizer, name), PromptTokenizer(tokenizer, name), window, int(config.vocab_size))
