"""What a caller may ask of a model: prompts and sampling are checked here, once for all models, before any work begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rag.core.errors import InputError, PromptTooLong
from rag.core.types import Message, Prompt, Sampling

MAX_LOGPROBS = 20
"""Alternatives per token that one may ask for: the bound of vLLM and of OpenAI, kept in process too so that models can be swapped."""

_ROLES = ("system", "user", "assistant")


def checked(prompt: Prompt, sampling: Sampling | None = None) -> None:
    """Raise `InputError` that names the first thing wrong with ``prompt`` or ``sampling``."""
    _check_prompt(prompt)
    if sampling is not None:
        check_sampling(sampling)


def check_text(text: Any, what: str) -> None:
    """Raise `InputError` unless ``text`` is a string that UTF-8 can carry and holds something."""
    if not isinstance(text, str):
        raise InputError(f"{what} is a string, not {type(text).__name__}")
    if not text:
        raise InputError(f"{what} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds half of a surrogate pair at character {error.start}; decode its source with errors='replace'"
        ) from None


def _check_prompt(prompt: Prompt) -> None:
    if isinstance(prompt, str):
        check_text(prompt, "the prompt")
        return
    if not isinstance(prompt, Sequence):
        raise InputError(f"a prompt is a string or a list of Message, not {type(prompt).__name__}")
    if not prompt:
        raise InputError("the prompt is an empty list; give at least one Message")
    for number, message in enumerate(prompt, start=1):
        if not isinstance(message, Message):
            raise InputError(f"message {number} of the prompt is a {type(message).__name__}; give rag.Message(role, content)")
        if message.role not in _ROLES:
            raise InputError(f"message {number} of the prompt has the role {message.role!r}; allowed are {', '.join(_ROLES)}")
        if message.content != "":
            check_text(message.content, f"message {number} of the prompt")


def check_sampling(sampling: Sampling) -> None:
    """Raise `InputError` that names the first thing wrong with ``sampling``."""
    if not _whole(sampling.max_tokens) or sampling.max_tokens < 1:
        raise InputError(f"max_tokens is a whole number of at least 1, not {sampling.max_tokens!r}")
    if not _finite(sampling.temperature) or not 0 <= sampling.temperature <= 100:
        raise InputError(f"temperature is a number from 0 (greedy) to 100, not {sampling.temperature!r}")
    if not _finite(sampling.top_p) or not 0 < sampling.top_p <= 1:
        raise InputError(f"top_p is a number above 0 and at most 1, not {sampling.top_p!r}")
    if sampling.logprobs is not None and (not _whole(sampling.logprobs) or not 0 <= sampling.logprobs <= MAX_LOGPROBS):
        raise InputError(f"logprobs is None or a whole number from 0 to {MAX_LOGPROBS}, not {sampling.logprobs!r}")
    if len(sampling.logprob_ids) > MAX_LOGPROBS or not all(_whole(token) and token >= 0 for token in sampling.logprob_ids):
        raise InputError(f"logprob_ids holds at most {MAX_LOGPROBS} token ids from 0, not {sampling.logprob_ids!r}")
    if sampling.until is not None and not callable(sampling.until):
        raise InputError(f"until is None or a function of the text so far, not {sampling.until!r}")
    for name in ("presence_penalty", "frequency_penalty"):
        penalty = getattr(sampling, name)
        if not _finite(penalty) or not -2 <= penalty <= 2:
            raise InputError(f"{name} is a number from -2 to 2, not {penalty!r}")
    if sampling.seed is not None and (not _whole(sampling.seed) or not 0 <= sampling.seed < 2**63):
        raise InputError(f"seed is None or a whole number from 0 to 2**63 - 1, not {sampling.seed!r}")
    stop: Any = sampling.stop
    if isinstance(stop, str):  # its letters would each be a stop string
        raise InputError(f"stop is a tuple of strings; write stop=({stop!r},)")
    for text in sampling.stop:
        check_text(text, "a stop string")
    for token, bias in sampling.logit_bias.items():
        if not _whole(token) or token < 0 or not _finite(bias) or abs(bias) > 100:
            raise InputError(f"logit_bias maps token ids to numbers from -100 to 100, not {token!r} to {bias!r}")


def fitted(sampling: Sampling, prompt_tokens: int, window: int, name: str) -> Sampling:
    """``sampling`` with max_tokens cut to what the window leaves. Raises `PromptTooLong` if not one token fits behind the prompt."""
    left = window - prompt_tokens
    if left < 1:
        raise PromptTooLong(
            f"the prompt takes {prompt_tokens} tokens and leaves no room to write: the window of {name} holds {window} tokens, prompt and "
            "answer together; give fewer or shorter passages, or a model with a longer window"
        )
    return sampling if sampling.max_tokens <= left else replace(sampling, max_tokens=left)


def check_scored(tokens: int, window: int, name: str, reserved: int = 0) -> None:
    """Raise `PromptTooLong` unless prompt and continuation, ``tokens`` together, fit the window less what the engine has ``reserved``."""
    if tokens > window - reserved:
        room = f"{window} tokens" + (f", {reserved} of them for what it writes" if reserved else "")
        raise PromptTooLong(
            f"prompt and continuation take {tokens} tokens together; the window of {name} holds {room}: give a shorter prompt"
        )


def parted(prompt: Prompt) -> tuple[Prompt, str]:
    """``prompt`` without the beginning of an answer, and that beginning: what the last message of a chat says if it is the assistant's."""
    if isinstance(prompt, str) or len(prompt) < 2 or prompt[-1].role != "assistant":
        return prompt, ""
    return prompt[:-1], prompt[-1].content


def messages_json(prompt: Sequence[Message]) -> list[dict[str, str]]:
    """Chat messages as the OpenAI format has them."""
    return [{"role": message.role, "content": message.content} for message in prompt]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
