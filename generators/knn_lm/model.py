"""kNN-LM as a model that methods write with."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from generators.knn_lm.datastore import Datastore
from generators.knn_lm.decoder import Decoder
from generators.knn_lm.interpolation import Interpolation
from generators.models.calling import called
from generators.models.checks import check_scored, check_text, checked, fitted, parted
from generators.models.decoding import Engine, Reading, Writing
from generators.models.tokens import PromptTokenizer
from rag.core.batcher import Batcher
from rag.core.errors import InputError
from rag.core.registry import component
from rag.core.sync import run_sync
from rag.core.trace import count
from rag.core.types import Generation, Prompt, Sampling

if TYPE_CHECKING:
    import torch


@component
class KNNLM:
    """``model`` ("smollm2", a folder, or a Hugging Face id) in this process, mixed at each token with the ``datastore`` in a folder.

    ``weight`` is λ, ``temperature`` that of the distances, ``k`` the neighbours: see `Interpolation`. Log-probabilities are those of the
    mixture. Model and datastore are loaded on first use; `CorpusMismatch` if they do not belong together. Calls in flight are gathered
    into batches of at most ``max_batch``. Text is streamed in one piece.
    """

    def __init__(
        self,
        datastore: str,
        model: str = "smollm2",
        weight: float = 0.25,
        temperature: float = 1.0,
        k: int = 128,
        device: str = "auto",
        max_batch: int = 16,
    ) -> None:
        self.datastore = datastore
        self.model = model
        self.weight = weight
        self.temperature = temperature
        self.k = k
        self.device = device
        self.max_batch = max_batch
        self._interpolation = Interpolation(weight, temperature, k)
        self._batcher: Batcher[Writing | Reading, Generation] = Batcher(self._work, max_batch=max_batch, name="kNN-LM", key=type)
        self._loader: Batcher[None, _Parts] = Batcher(lambda waiting: [self._loaded()] * len(waiting), name="kNN-LM loader")
        self._loading = threading.Lock()
        self._parts: _Parts | None = None

    @property
    def name(self) -> str:
        """What the model was asked for as."""
        return self.model

    @property
    def window(self) -> int:
        """Tokens that prompt and generation may hold together (which loads the model)."""
        return self._loaded().decoder.window

    @property
    def capabilities(self) -> frozenset[str]:
        """All but adapters: with one, its vectors would be others than those of the datastore."""
        return frozenset({"logprobs", "score", "logit_bias", "token_ids", "prefix"})

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        """Write one continuation of ``prompt``."""
        return await called("chat", "knn-lm", self.name, self._generated(prompt, sampling), sampling)

    async def astream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        """Yield the text, if there is any, and the `Generation`."""
        generation = await self.agenerate(prompt, sampling)
        if generation.text:
            yield generation.text
        yield generation

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        """Log-likelihood of ``continuation`` after ``prompt`` by the mixture; as `Local.ascore`."""
        checked(prompt)
        check_text(continuation, "the continuation")
        return await called("score", "knn-lm", self.name, self._scored(prompt, continuation))

    async def acount(self, prompt: Prompt) -> int:
        """Tokens that ``prompt`` takes, the chat template included."""
        checked(prompt)
        return len((await self._ready()).encode(prompt))

    async def aencode(self, text: str) -> list[int]:
        """The ids of ``text`` as the model would write it, without special tokens."""
        check_text(text, "the text")
        return (await self._ready()).tokens.ids(text, special=False)

    def generate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        """Blocking twin of `agenerate`."""
        return run_sync(self.agenerate(prompt, sampling))

    def score(self, prompt: Prompt, continuation: str) -> Generation:
        """Blocking twin of `ascore`."""
        return run_sync(self.ascore(prompt, continuation))

    async def _generated(self, prompt: Prompt, sampling: Sampling) -> Generation:
        checked(prompt, sampling)
        parts = await self._ready()
        for token in (*sampling.logit_bias, *sampling.logprob_ids):
            if token >= parts.vocabulary:
                raise InputError(
                    f"logit_bias or logprob_ids names the token {token}; {self.name} has the tokens 0 to {parts.vocabulary - 1}"
                )
        ids = parts.encode(prompt)
        writing = Writing(ids, fitted(sampling, len(ids), parts.decoder.window, self.name))
        try:
            generation = await self._batcher(writing)
        finally:
            writing.cancelled = True  # ends the row early if it was this call that was cancelled
        count(calls=1, prompt_tokens=generation.prompt_tokens, generated_tokens=generation.generated_tokens)
        return generation

    async def _scored(self, prompt: Prompt, continuation: str) -> Generation:
        parts = await self._ready()
        before, after = parts.encode(prompt), parts.tokens.ids(continuation, special=False)
        check_scored(len(before) + len(after), parts.decoder.window, self.name)
        generation = await self._batcher(Reading(before, after, continuation))
        count(calls=1, prompt_tokens=len(before) + len(after), generated_tokens=0)
        return generation

    async def _ready(self) -> _Parts:
        return self._parts or await self._loader(None)

    def _loaded(self) -> _Parts:
        with self._loading:
            if self._parts is None:
                store = Datastore(self.datastore)  # first: it fails sooner than a model loads
                decoder = Decoder.load(self.model, device=self.device)
                store.check(decoder.source)
                self._parts = _Parts(decoder, store, self._interpolation)
            return self._parts

    def _work(self, jobs: list[Writing | Reading]) -> list[Generation]:
        return self._loaded().engine.work(jobs)


class _Parts:
    """A loaded model with its datastore behind the engine that `Local` uses."""

    def __init__(self, decoder: Decoder, datastore: Datastore, interpolation: Interpolation) -> None:
        self.decoder = decoder
        self.tokens = PromptTokenizer(decoder.tokenizer, decoder.name)
        self.vocabulary = int(decoder.model.config.get_text_config().vocab_size)
        self.engine = Engine(Mixed(decoder, datastore, interpolation), decoder.tokenizer, decoder.name)

    def encode(self, prompt: Prompt) -> list[int]:
        """The ids of ``prompt``; a begun answer follows the template directly."""
        chat, beginning = parted(prompt)
        return self.tokens.ids(chat) + (self.tokens.ids(beginning, special=False) if beginning else [])


class Mixed:
    """Stands where a transformers model is called: its logits are the mixture's log-probabilities. ``datastore`` is the decoder's."""

    def __init__(self, decoder: Decoder, datastore: Datastore, interpolation: Interpolation) -> None:
        self._decoder = decoder
        self._datastore = datastore
        self._interpolation = interpolation
        self.config = decoder.model.config
        self.generation_config = decoder.model.generation_config
        self.device = decoder.model.device

    def __call__(self, **inputs: Any) -> Any:
        """As the model's forward pass; ``logits`` [rows, positions, vocabulary] are those of the last positions that it gave."""
        import torch

        with self._decoder.capturing() as captured:
            output = self._decoder.model(**inputs)
        logits: torch.Tensor = output.logits
        rows, positions, vocabulary = logits.shape
        base = logits.reshape(-1, vocabulary).float().log_softmax(-1).cpu().numpy()
        keys = captured[0][:, -positions:].reshape(rows * positions, -1).float().cpu().numpy()
        mixed = self._interpolation.distribution(base, self._datastore.search(keys, self._interpolation.k))
        output.logits = torch.from_numpy(mixed).to(logits.device).reshape(rows, positions, vocabulary)
        return output
