"""A model on a vLLM server (Kwon et al. 2023, https://arxiv.org/abs/2309.06180), whose continuous batching gathers the calls in flight."""

from __future__ import annotations

import asyncio
import copy
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.models.calling import called, streamed
from generators.models.checks import check_sampling, check_scored, check_text, checked, fitted, messages_json, parted
from generators.models.completion import Completion, payload, scored
from generators.models.http import HttpClient, StreamBroken
from generators.models.refusals import check_worn, with_advice
from generators.models.together import together
from generators.models.token_prompt import TokenPrompt
from generators.models.tokens import SameTokens
from generators.models.vocabulary import Vocabulary
from rag.core.errors import ModelError, ModelRefused
from rag.core.registry import component
from rag.core.sync import iterate_sync, run_sync
from rag.core.trace import count, note
from rag.core.types import Generation, Prompt, Sampling

if TYPE_CHECKING:
    from generators.models.rack import Rack

_REMEMBERED = 256
"""Prompts whose tokens are kept: methods count a prompt before they send it, and the server should read it once."""


@component
class VLLM:
    """Talks to a vLLM server at ``url``, which ends in ``/v1``.

    ``model`` is the name that the server gives the model (its only or first one if None); ``adapter`` names a LoRA adapter that the server
    has loaded (`Rack` loads on first use). ``api_key_env`` names the environment variable that holds the server's key. ``timeout`` is in
    seconds without a byte of the answer; ``retries`` follow on connection errors, timeouts, 429 and 5xx; at most ``max_connections``
    calls are in flight.

    The server renders its chat template and tokenises, once per call; the ids then go to ``/v1/completions``, so that prompts of both
    kinds give exact tokens, and ``max_tokens`` is cut to what the window leaves. ``tokenizer`` ("smollm2", the model's folder, or its
    Hugging Face id) does so in this process instead, which spares a busy server a call for each prompt; it is compared with the server's.
    ``contexts`` says that the server has the connector of `Stitched`'s stores; {"tenant": …, "key_env": …} says as whom it is asked.

    Raises `ModelUnavailable`, `ModelRefused`, `PromptTooLong`.
    """

    def __init__(
        self,
        url: str = "http://localhost:8000/v1",
        model: str | None = None,
        adapter: str | None = None,
        api_key_env: str | None = None,
        timeout: float = 120.0,
        retries: int = 4,
        max_connections: int = 256,
        tokenizer: str | None = None,
        contexts: bool | Mapping[str, str] = False,
    ) -> None:
        self.url = url
        self.model = model
        self.adapter = adapter
        self.api_key_env = api_key_env
        self.timeout = timeout
        self.retries = retries
        self.max_connections = max_connections
        self.tokenizer = tokenizer
        self.contexts = contexts
        self.rack: Rack | None = None
        """Who loads the adapter and keeps it loaded while a call is in flight; None: it is loaded by other means."""
        self._http = HttpClient(
            url.rstrip("/").removesuffix("/v1") if isinstance(url, str) else url,
            api_key_env=api_key_env,
            key_required=True,
            timeout=timeout,
            retries=retries,
            max_connections=max_connections,
        )
        self._tokenizer = None if tokenizer is None else SameTokens(tokenizer)
        self._vocabulary = Vocabulary(self._detokenize)
        self._served: str | None = model
        self._window: int | None = None
        self._read: OrderedDict[str, tuple[list[int], int]] = OrderedDict()  # requests, with their tokens and the window

    @property
    def name(self) -> str:
        """The adapter's name if one is worn, else the model's; the server is asked on first use if neither was given."""
        if self.adapter or self._served:
            return self.adapter or self._served or ""
        return self._ask()[0]

    @property
    def window(self) -> int:
        """Tokens that prompt and generation may hold together; the server is asked on first use."""
        return self._window or self._ask()[1]

    @property
    def capabilities(self) -> frozenset[str]:
        """All that the contract knows."""
        return frozenset({"logprobs", "score", "logit_bias", "token_ids", "prefix", "adapters"})

    async def agenerate(self, prompt: Prompt | TokenPrompt, sampling: Sampling = Sampling()) -> Generation:
        """Write one continuation of ``prompt``."""
        check_sampling(sampling) if isinstance(prompt, TokenPrompt) else checked(prompt, sampling)
        async with self._worn():
            return await called("chat", "vllm", await self._name(), self._written(prompt, sampling), sampling)

    async def astream(self, prompt: Prompt | TokenPrompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        """Yield text pieces as the server writes them and, last, the `Generation`; the pieces join to its text."""
        check_sampling(sampling) if isinstance(prompt, TokenPrompt) else checked(prompt, sampling)
        async with (
            self._worn(),
            aclosing(streamed("vllm", await self._name(), self._writing(prompt, sampling), sampling)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        """Log-likelihood of ``continuation`` after ``prompt``: its tokens, their log-probabilities and their offsets in it.

        Prompt and continuation are tokenised apart and joined, so a token never spans the boundary: begin the continuation with the space
        that belongs to its first word. A server with LoRA should be started as `serve_vllm` does, without lm_head among its
        --lora-target-modules: vLLM 0.32 mixes up adapters there while it scores, and its CPU build dies.
        """
        checked(prompt)
        check_text(continuation, "the continuation")
        async with self._worn():
            return await called("score", "vllm", await self._name(), self._scored(prompt, continuation))

    async def acount(self, prompt: Prompt) -> int:
        """Tokens that ``prompt`` takes, the chat template included."""
        checked(prompt)
        async with self._worn():
            return len(await self._tokens(prompt))

    async def aencode(self, text: str) -> list[int]:
        """The ids of ``text`` as the model would write it, without special tokens."""
        check_text(text, "the text")
        async with self._worn():
            return await self._tokens(text, special=False)

    def generate(self, prompt: Prompt | TokenPrompt, sampling: Sampling = Sampling()) -> Generation:
        """Blocking twin of `agenerate`."""
        return run_sync(self.agenerate(prompt, sampling))

    def generate_many(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Generation]:
        """Write one continuation of each prompt, all in flight together; the first error stops the rest."""
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

    def with_adapter(self, name: str | None) -> VLLM:
        """The same model wearing the adapter ``name`` (None: bare), over the same connections."""
        other = copy.copy(self)
        other.adapter = name
        return other

    async def aload_adapter(self, name: str, path: str | Path, max_rank: int = 16, targets: Sequence[str] | None = None) -> VLLM:
        """Have the server load the LoRA adapter at ``path`` (on the server's disk) as ``name``; return the model that wears it.

        A folder of this machine is looked at first, against the server's ``--max-lora-rank`` and ``--lora-target-modules``
        (``max_rank``, ``targets``; the defaults are vLLM's): what the server would refuse or wear in part is not sent. vLLM keeps the
        prompts that it has read by name and path, so changed weights want another path. Raises `AdapterError` and its kinds, and
        `ModelRefused`.
        """
        if Path(path).is_dir():
            from generators.models.served_adapter import check

            root = next((str(card.get("root") or "") for card in await self.acards() if not card.get("parent")), "")
            await asyncio.to_thread(check, Path(path), max_rank, targets, root)
        try:
            await self._http.tell("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        except ModelRefused as error:
            raise with_advice(error) from error
        return self.with_adapter(name)

    async def aunload_adapter(self, name: str) -> None:
        """Have the server forget the adapter ``name``."""
        try:
            await self._http.tell("/v1/unload_lora_adapter", {"lora_name": name})
        except ModelRefused as error:
            raise with_advice(error) from error

    async def ametrics(self) -> str:
        """What the server counts, in the format of Prometheus."""
        return await self._http.text("/metrics")

    async def aserved(self) -> dict[str, str]:
        """The adapters that the server has loaded: their folders on its disk, by name."""
        return {str(card["id"]): str(card.get("root") or "") for card in await self.acards() if card.get("parent")}

    def load_adapter(self, name: str, path: str | Path, max_rank: int = 16, targets: Sequence[str] | None = None) -> VLLM:
        """Blocking twin of `aload_adapter`."""
        return run_sync(self.aload_adapter(name, path, max_rank, targets))

    def unload_adapter(self, name: str) -> None:
        """Blocking twin of `aunload_adapter`."""
        run_sync(self.aunload_adapter(name))

    def served(self) -> dict[str, str]:
        """Blocking twin of `aserved`."""
        return run_sync(self.aserved())

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        await self._http.close()

    async def _written(self, prompt: Prompt | TokenPrompt, sampling: Sampling) -> Generation:
        if sampling.until is not None:  # only a stream can be left early
            try:
                async with aclosing(self._writing(prompt, sampling)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Generation):
                            return piece
            except StreamBroken as error:  # nobody has seen any of it, so it can be asked for again, in one piece
                note(str(error))
        name, length, fitting, request = await self._prepared(prompt, sampling)
        answer = await self._post("/v1/completions", request)
        completion = Completion(fitting)
        completion.add(answer, self._http.address)
        if isinstance(prompt, TokenPrompt):
            prompt.hear(answer)
        generation = await completion.generation(self._vocabulary, name, length)
        count(calls=1, prompt_tokens=length, generated_tokens=generation.generated_tokens)
        return generation

    async def _scored(self, prompt: Prompt, continuation: str) -> Generation:
        name = await self._name()
        before, after = await asyncio.gather(self._tokens(prompt), self._tokens(continuation, special=False))
        ids = [*before, *after]
        check_scored(len(ids), self.window, name, reserved=1)  # the server writes a token even when it only reads
        answer = await self._post("/v1/completions", {**payload(name, ids, Sampling(max_tokens=1)), "prompt_logprobs": 0})
        count(calls=1, prompt_tokens=len(ids), generated_tokens=0)
        return scored(answer, before, after, continuation, name, self._http.address)

    async def _writing(self, prompt: Prompt | TokenPrompt, sampling: Sampling) -> AsyncGenerator[str | Generation, None]:
        name, length, fitting, request = await self._prepared(prompt, sampling, stream=True)
        completion = Completion(fitting)
        try:
            async with aclosing(self._events("/v1/completions", request)) as events:
                async for event in events:
                    piece = completion.add(event, self._http.address)
                    if piece:
                        yield piece
                    if piece and completion.enough():
                        break
        finally:  # also when the listener leaves early: the tokens were computed
            count(calls=1, prompt_tokens=length, generated_tokens=len(completion.ids))
        yield await completion.generation(self._vocabulary, name, length)

    async def _prepared(
        self, prompt: Prompt | TokenPrompt, sampling: Sampling, stream: bool = False
    ) -> tuple[str, int, Sampling, dict[str, Any]]:
        """Name, tokens of the prompt, sampling that fits, and the request."""
        spelt = prompt if isinstance(prompt, TokenPrompt) else TokenPrompt(await self._tokens(prompt))
        name, length = await self._name(), len(spelt.ids)
        fitting = fitted(sampling, length, self._window or (await self._look())[1], name)
        return name, length, fitting, payload(name, spelt.ids, fitting, stream) | spelt.params

    async def _name(self) -> str:
        return self.adapter or self._served or (await self._look())[0]

    async def _look(self) -> tuple[str, int]:
        """Learn the served model's name and window from the server's list."""
        cards = await self.acards()
        try:
            card = next((c for c in cards if c["id"] == self._served), None) if self._served else cards[0]
            if card is None:
                raise ModelRefused(f"{self._http.address} serves no model '{self._served}'; it serves: {', '.join(c['id'] for c in cards)}")
            self._served, self._window = str(card["id"]), int(card["max_model_len"])
        except (KeyError, IndexError, TypeError) as error:
            raise self._not_vllm("/v1/models") from error
        return self._served, self._window

    async def acards(self) -> list[Any]:
        """What the server's list tells of the model and of each adapter that is loaded."""
        answer = await self._http.get("/v1/models")
        try:
            return [card for card in answer["data"] if card["id"]]
        except (KeyError, TypeError) as error:
            raise self._not_vllm("/v1/models") from error

    def _not_vllm(self, path: str) -> ModelError:
        return ModelError(f"{self._http.address} answered {path} in a shape that is not vLLM's; for other servers use OpenAICompatible")

    def _ask(self) -> tuple[str, int]:
        """`_look` for a property: in a thread of its own, because the caller may be a coroutine of the loop that would serve it."""

        async def look() -> tuple[str, int]:
            try:
                return await self._look()
            finally:
                await self._http.close()

        with ThreadPoolExecutor(1) as thread:
            name, window = thread.submit(asyncio.run, look()).result()
        return self.adapter or name, window

    async def _tokens(self, prompt: Prompt, special: bool = True) -> list[int]:
        chat, beginning = parted(prompt)
        if beginning:  # tokens apart, as the model itself would have written them behind the template
            return [*await self._tokens(chat), *await self._tokens(beginning, special=False)]
        prompt = chat
        text: dict[str, Any] = (
            {"prompt": prompt, "add_special_tokens": special} if isinstance(prompt, str) else {"messages": messages_json(prompt)}
        )
        request = {"model": await self._name(), **text}
        key = json.dumps(request)
        if key not in self._read:
            self._read[key] = await self._read_anew(prompt, special, request)
        self._read.move_to_end(key)
        if len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        ids, self._window = self._read[key]
        return list(ids)  # what is remembered is nobody's to change

    async def _read_anew(self, prompt: Prompt, special: bool, request: Mapping[str, Any]) -> tuple[list[int], int]:
        """Tokens and window, by the server or, once both agreed on a prompt of this kind, in this process."""
        if self._tokenizer is None:
            return await self._tokenized(request)
        if self._tokenizer.agreed(request["model"], prompt, special):
            return self._tokenizer.ids(prompt, special), self._window or (await self._look())[1]
        ids, window = await self._tokenized(request)
        self._tokenizer.compare(request["model"], prompt, special, ids)
        return ids, window

    async def _tokenized(self, request: Mapping[str, Any]) -> tuple[list[int], int]:
        answer = await self._post("/tokenize", request)
        try:
            return [int(token) for token in answer["tokens"]], int(answer["max_model_len"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_vllm("/tokenize") from error

    async def _detokenize(self, ids: list[int]) -> str:
        if self._tokenizer is not None:
            return self._tokenizer.text(ids)
        answer = await self._post("/detokenize", {"model": await self._name(), "tokens": ids})
        try:
            return str(answer["prompt"])
        except (KeyError, TypeError) as error:
            raise self._not_vllm("/detokenize") from error

    def _worn(self) -> AbstractAsyncContextManager[None]:
        """The adapter stays loaded while this lasts."""
        return nullcontext() if self.rack is None or self.adapter is None else self.rack.lease(self.adapter)

    async def _post(self, path: str, request: Mapping[str, Any]) -> Any:
        try:
            answer = await self._http.post(path, request)
        except ModelRefused as error:
            await self._reload(error)
            answer = await self._http.post(path, request)
        check_worn(answer, self.adapter, self._http.address)
        return answer

    async def _events(self, path: str, request: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        for last in (False, True):
            try:
                async with aclosing(self._http.stream(path, request)) as events:
                    async for event in events:
                        check_worn(event, self.adapter, self._http.address)
                        yield event
                return
            except ModelRefused as error:  # such an answer comes before the first event
                if last:
                    raise
                await self._reload(error)

    async def _reload(self, error: ModelRefused) -> None:
        """After a server that was started anew has forgotten the adapter. Raises ``error`` where that is not what happened."""
        if self.adapter is None or "does not exist" not in str(error):
            raise error
        if self.rack is None:
            loaded = ", ".join(await self.aserved()) or "none"
            raise ModelRefused(
                f"{self._http.address} has no adapter '{self.adapter}' loaded; loaded are: {loaded};"
                f" `rag adapters load {self.adapter} --url {self.url}` loads it"
            ) from error
        await self.rack.restore(self.adapter)
