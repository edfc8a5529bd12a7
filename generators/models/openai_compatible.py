"""A model behind any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import codecs
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from generators.models.calling import called, streamed
from generators.models.checks import check_text, checked, messages_json
from generators.models.completion import penalties
from generators.models.http import HttpClient
from generators.models.offsets import align
from generators.models.together import together
from rag.core.errors import InputError, MissingCapability, ModelError, ModelUnavailable
from rag.core.registry import component
from rag.core.sync import iterate_sync, run_sync
from rag.core.trace import count
from rag.core.types import Generation, Message, Prompt, Sampling, Token

_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 4


@component
class OpenAICompatible:
    """Talks to ``{url}/chat/completions``; ``url`` usually ends in ``/v1``, and ``model`` is the server's name for the model.

    A string prompt is sent as one user message: such servers continue chats, not raw text. ``api_key_env`` names the environment variable
    that holds the key (no key is sent if it is unset). ``window`` is what the caller knows of the model; the server is not asked.
    ``max_tokens_field`` is "max_completion_tokens" for servers that refuse "max_tokens". Tokens have the id -1: this format names none.
    Log-probabilities come if the server gives them, else asking raises `MissingCapability`; scoring always does. For all of it use `VLLM`.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key_env: str | None = "OPENAI_API_KEY",
        window: int = 8192,
        max_tokens_field: str = "max_tokens",
        timeout: float = 120.0,
        retries: int = 4,
        max_connections: int = 256,
    ) -> None:
        check_text(model, "model")
        if window < 1:
            raise InputError(f"window is at least 1, not {window!r}")
        if max_tokens_field not in ("max_tokens", "max_completion_tokens"):
            raise InputError(f"max_tokens_field is 'max_tokens' or 'max_completion_tokens', not {max_tokens_field!r}")
        self.url = url
        self.model = model
        self.api_key_env = api_key_env
        self.window = window
        self.max_tokens_field = max_tokens_field
        self.timeout = timeout
        self.retries = retries
        self.max_connections = max_connections
        self._http = HttpClient(
            url, api_key_env=api_key_env, key_required=False, timeout=timeout, retries=retries, max_connections=max_connections
        )

    @property
    def name(self) -> str:
        """The server's name for the model."""
        return self.model

    @property
    def capabilities(self) -> frozenset[str]:
        """What the format offers; a server may still leave the log-probabilities out."""
        return frozenset({"logprobs", "logit_bias"})

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        """Write one answer to ``prompt``."""
        checked(prompt, sampling)
        return await called("chat", "openai", self.model, self._written(prompt, sampling), sampling)

    async def _written(self, prompt: Prompt, sampling: Sampling) -> Generation:
        answer = await self._http.post("/chat/completions", self._payload(prompt, sampling))
        reply = _Reply(self._http.address)
        reply.add(answer, "message")
        generation = reply.generation(self.model, sampling)
        count(calls=1, prompt_tokens=generation.prompt_tokens, generated_tokens=generation.generated_tokens)
        return generation

    async def astream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        """Yield text pieces as the server writes them and, last, the `Generation`; the pieces join to its text."""
        checked(prompt, sampling)
        async with aclosing(streamed("openai", self.model, self._writing(prompt, sampling), sampling)) as pieces:
            async for piece in pieces:
                yield piece

    async def _writing(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str | Generation, None]:
        reply = _Reply(self._http.address)
        payload = {**self._payload(prompt, sampling), "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with aclosing(self._http.stream("/chat/completions", payload)) as events:
                async for event in events:
                    piece = reply.add(event, "delta")
                    if piece:
                        yield piece
        finally:
            count(calls=1, prompt_tokens=reply.prompt_tokens, generated_tokens=reply.generated_tokens)
        yield reply.generation(self.model, sampling)

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        """Not offered by this format: raises `MissingCapability`."""
        raise MissingCapability(f"{self.model} at {self._http.address} cannot score a given text over chat completions; use VLLM or Local")

    async def acount(self, prompt: Prompt) -> int:
        """An estimate on the safe side, since the format offers no count: a token per 3 bytes of UTF-8 and 4 per message."""
        checked(prompt)
        messages = _messages(prompt)
        return sum(math.ceil(len(message.content.encode()) / _BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE for message in messages)

    async def aencode(self, text: str) -> list[int]:
        """Not offered by this format: raises `MissingCapability`."""
        raise MissingCapability(f"{self.model} at {self._http.address} tells no token ids over chat completions; use VLLM or Local")

    def generate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        """Blocking twin of `agenerate`."""
        return run_sync(self.agenerate(prompt, sampling))

    def generate_many(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Generation]:
        """Write one answer to each prompt, all in flight together; the first error stops the rest."""
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

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        await self._http.close()

    def _payload(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": messages_json(_messages(prompt)),
            self.max_tokens_field: sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        request |= penalties(sampling)
        if sampling.logit_bias:
            request["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
        if sampling.logprob_ids:
            raise MissingCapability(f"{self.model} at {self._http.address} takes no token ids over chat completions; use VLLM or Local")
        if sampling.logprobs is not None:
            request |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        return request


class _Reply:
    """Collects one answer, whole or event by event."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._text: list[str] = []
        self._entries: list[Mapping[str, Any]] = []
        self._finish: str | None = None
        self.prompt_tokens = 0
        self.generated_tokens = 0

    def add(self, answer: Any, part: str) -> str:
        """Take in one answer or event, whose text is under ``part``, and return that text."""
        try:
            usage = answer.get("usage") or {}
            self.prompt_tokens = int(usage.get("prompt_tokens") or self.prompt_tokens)
            self.generated_tokens = int(usage.get("completion_tokens") or self.generated_tokens)
            if not answer["choices"]:
                return ""
            choice = answer["choices"][0]
            text = str(choice[part].get("content") or "")
            self._entries += (choice.get("logprobs") or {}).get("content") or ()
            self._finish = choice.get("finish_reason") or self._finish
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"{self._address} answered in a shape that is not OpenAI's chat completions ({reason})") from error
        self._text.append(text)
        return text

    def generation(self, model: str, sampling: Sampling) -> Generation:
        """The finished `Generation`. Raises `ModelUnavailable` if the server gave up, `MissingCapability` for missing log-probabilities."""
        text = "".join(self._text)
        if self._finish is None:
            raise ModelUnavailable(f"{self._address} ended its answer without a finish_reason; ask again")
        if sampling.logprobs is not None and text and not self._entries:
            raise MissingCapability(f"{model} at {self._address} gave no log-probabilities although they were asked for; use VLLM or Local")
        tokens = self._tokens(text) if sampling.logprobs is not None else ()
        finish = "length" if self._finish == "length" else "stop"
        return Generation(text, tokens, finish, self.prompt_tokens, self.generated_tokens or len(tokens), model)  # type: ignore[arg-type]

    def _tokens(self, text: str) -> tuple[Token, ...]:
        try:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            spans = align([decoder.decode(_bytes(entry)) for entry in self._entries], text)
            return tuple(
                Token(text[start:end], -1, float(entry["logprob"]), start, end, _alternatives(entry))
                for entry, (start, end) in zip(self._entries, spans, strict=True)
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"{self._address} sent log-probabilities in a shape that is not OpenAI's ({reason})") from error


def _bytes(entry: Mapping[str, Any]) -> bytes:
    given = entry.get("bytes")
    return bytes(given) if given is not None else str(entry["token"]).encode()


def _alternatives(entry: Mapping[str, Any]) -> tuple[tuple[int, str, float], ...]:
    ranked = sorted(entry.get("top_logprobs") or (), key=lambda other: -float(other["logprob"]))
    return tuple((-1, str(other["token"]), float(other["logprob"])) for other in ranked)


def _messages(prompt: Prompt) -> Sequence[Message]:
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt
