"""vLLM's ``/v1/completions``: how a request is written and its answer read, in one piece or streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generators.models.offsets import align, cut_tokens
from generators.models.vocabulary import Vocabulary
from rag.core.errors import ModelError, ModelUnavailable
from rag.core.types import Generation, Sampling, Token


def payload(model: str, ids: Sequence[int], sampling: Sampling, stream: bool = False) -> dict[str, Any]:
    """The request. All knobs are sent, so that a server's own defaults (a model's generation_config.json) change nothing."""
    request: dict[str, Any] = {
        "model": model,
        "prompt": list(ids),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop": list(sampling.stop),
        "return_token_ids": True,
    }
    if sampling.seed is not None:
        request["seed"] = sampling.seed
    request |= penalties(sampling)
    if sampling.logit_bias:
        request["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.logprob_ids:
        request["logprob_token_ids"] = list(sampling.logprob_ids)
    if (wanted := _alternatives(sampling)) is not None:
        request["logprobs"] = wanted
        # The server names alternatives either by text (then those of equal text, all bytes of unfinished characters, fall together) or
        # by id. Only ids are exact.
        request["return_tokens_as_token_ids"] = wanted > 0
    if stream:
        request["stream"] = True
    return request


def penalties(sampling: Sampling) -> dict[str, float]:
    """The penalties that are set, under the names that vLLM and OpenAI share. Not all servers of this format know them."""
    given = {"presence_penalty": sampling.presence_penalty, "frequency_penalty": sampling.frequency_penalty}
    return {name: value for name, value in given.items() if value}


def _alternatives(sampling: Sampling) -> int | None:
    """How many alternatives come with each token; None if not even its own log-probability does."""
    return len(sampling.logprob_ids) or sampling.logprobs


class Completion:
    """Collects one answer, whole or event by event."""

    def __init__(self, sampling: Sampling) -> None:
        self._alternatives = _alternatives(sampling)
        self._ids_wanted = frozenset(sampling.logprob_ids)
        self._until = sampling.until
        self._text: list[str] = []
        self._pieces: list[str] = []
        self._logprobs: list[float] = []
        self._top: list[list[tuple[int, float]]] = []
        self._finish: str | None = None
        self._cut = False
        self.ids: list[int] = []

    def add(self, answer: Any, address: str) -> str:
        """Take in one answer or event and return the text it brings. Raises `ModelError` for a shape that is not vLLM's."""
        try:
            if not answer["choices"]:  # the event that tells the usage
                return ""
            choice = answer["choices"][0]
            text = str(choice["text"])
            self._text.append(text)
            self.ids += [int(token) for token in choice.get("token_ids") or ()]
            if self._alternatives is not None and choice["logprobs"] is not None:
                self._add_logprobs(choice["logprobs"])
            if choice.get("finish_reason"):
                self._finish = str(choice["finish_reason"])
                self._cut = isinstance(choice.get("stop_reason"), str)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(
                f"{address} answered /v1/completions in a shape that is not vLLM's ({reason}); for other servers use OpenAICompatible"
            ) from error
        return text

    def enough(self) -> bool:
        """Whether the caller's ``until`` ends the answer here; the text may lack the end of the last token, which the server held back."""
        until = self._until
        if self._finish is not None or until is None or not until("".join(self._text)):
            return False
        self._finish, self._cut = "stop", True
        return True

    async def generation(self, vocabulary: Vocabulary, model: str, prompt_tokens: int) -> Generation:
        """The finished `Generation`. Raises `ModelUnavailable` if the server gave up on it."""
        if self._finish not in ("stop", "length"):
            raise ModelUnavailable(
                f"{model} broke off its answer (finish_reason {self._finish!r}): the server was stopped or short of memory"
            )
        text = "".join(self._text)
        tokens: tuple[Token, ...] = ()
        if self._alternatives is not None:
            tokens = await self._tokens(text, vocabulary)
        return Generation(
            text=text,
            tokens=tokens,
            finish="length" if self._finish == "length" else "stop",
            prompt_tokens=prompt_tokens,
            generated_tokens=len(self.ids),
            model=model,
        )

    def _add_logprobs(self, logprobs: Any) -> None:
        self._logprobs += [float(value) for value in logprobs["token_logprobs"]]
        if not self._alternatives:
            self._pieces += logprobs["tokens"]
            return
        for alternatives in logprobs["top_logprobs"]:
            ranked = sorted(
                ((int(key.removeprefix("token_id:")), float(value)) for key, value in alternatives.items()), key=lambda a: -a[1]
            )
            self._top.append([a for a in ranked if not self._ids_wanted or a[0] in self._ids_wanted][: self._alternatives])

    async def _tokens(self, text: str, vocabulary: Vocabulary) -> tuple[Token, ...]:
        if len(self._logprobs) != len(self.ids):
            raise ModelError(
                f"the server sent {len(self.ids)} tokens and {len(self._logprobs)} log-probabilities; is it vLLM 0.32 or later?"
            )
        top: list[tuple[tuple[int, str, float], ...]] = [()] * len(self.ids)
        pieces = self._pieces
        if self._alternatives:
            pieces = await vocabulary.pieces(self.ids)
            texts = await vocabulary.texts(token for ranked in self._top for token, _ in ranked)
            top = [tuple((token, texts[token], logprob) for token, logprob in ranked) for ranked in self._top]
        spans = align(pieces, text)
        tokens = tuple(
            Token(text[start:end], token, logprob, start, end, best)
            for token, logprob, (start, end), best in zip(self.ids, self._logprobs, spans, top, strict=True)
        )
        return cut_tokens(tokens, len(text)) if self._cut else tokens


def scored(answer: Any, before: Sequence[int], after: Sequence[int], continuation: str, model: str, address: str) -> Generation:
    """Read the log-probabilities of ``after`` from an answer with ``prompt_logprobs``. Raises `ModelError` where they are missing."""
    try:
        entries = answer["choices"][0]["prompt_logprobs"][len(before) :]
        found = [entry[str(token)] for token, entry in zip(after, entries, strict=True)]
        spans = align([str(entry["decoded_token"]) for entry in found], continuation)
        tokens = tuple(
            Token(continuation[start:end], token, float(entry["logprob"]), start, end)
            for token, entry, (start, end) in zip(after, found, spans, strict=True)
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(
            f"{address} sent no log-probabilities of the prompt ({type(error).__name__}: {error}); is it vLLM 0.32 or later?"
        ) from error
    return Generation(continuation, tokens, "stop", len(before), len(after), model)
