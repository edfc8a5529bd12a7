"""The requests that are taken, checked strictly: a number is a number (not "10", true or NaN), and an unknown field is refused.

OpenAI's fields fall in four groups. Used: ``model``, ``messages`` or ``prompt``, ``stream``, ``stream_options``. Followed if the method
that answers takes a `SamplingRequest` (`Sampled`). Accepted and not followed (`NotFollowed`); the answer names those that were set in vain.
Refused with 400, because the answer would not be what was asked for: tools, several choices, log-probabilities, structured output, stop
strings (`Refused`).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from rag.core.types import SamplingRequest
from rag.serve.errors import RequestError

MAX_K = 100
MAX_MESSAGES = 1_000
MAX_QUESTION = 20_000
"""Characters of a question or query."""

M = TypeVar("M", bound=BaseModel)
_Filter = dict[str, Any] | None


class Strict(BaseModel):
    """A request: no conversions, no NaN, no unknown fields, and no input repeated in an error."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", hide_input_in_errors=True)


class NotFollowed:
    """Marks a field that is accepted and checked, and then not followed."""


class Sampled:
    """Marks a field that says how to write the answer, as ``setting`` of a `SamplingRequest`."""

    def __init__(self, setting: str) -> None:
        self.setting = setting


class Refused:
    """Marks a field of which only null and the ``harmless`` values are taken: they ask for what every answer is anyway."""

    def __init__(self, *harmless: Any) -> None:
        self.harmless = harmless

    def check(self, name: str, value: Any) -> None:
        """Raises `RequestError` (400) for any other value."""
        if value is None or any(type(value) is type(one) and value == one for one in self.harmless):
            return
        if not self.harmless:
            raise RequestError(400, f"{name}: not supported by this server; leave it out", code="unsupported_parameter")
        allowed = " or ".join(json.dumps(one) for one in self.harmless)
        raise RequestError(400, f"{name}: only {allowed} is supported by this server; leave it out", code="unsupported_value")

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"enum": [None, *self.harmless], "description": "Nothing else is supported; leave it out."}


Text = Annotated[str | None, Field(max_length=1_000)]
_Ignored = Annotated[Text, NotFollowed()]
_IgnoredFlag = Annotated[bool | None, NotFollowed()]
_FrequencyPenalty = Annotated[float | None, Field(ge=-2, le=2), Sampled("frequency_penalty")]
_PresencePenalty = Annotated[float | None, Field(ge=-2, le=2), Sampled("presence_penalty")]
_Tokens = Annotated[int | None, Field(ge=1, le=2**31 - 1), Sampled("max_tokens")]
_Seed = Annotated[int | None, Field(ge=-(2**63), lt=2**63), Sampled("seed")]
_Temperature = Annotated[float | None, Field(ge=0, le=2), Sampled("temperature")]
_TopP = Annotated[float | None, Field(gt=0, le=1), Sampled("top_p")]
_Unsupported = Annotated[Any, Refused()]


class TextPart(Strict):
    """A text part of a message. Images and audio are not read."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One turn. The last turn of the role "user" is the question."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Union[str, list[TextPart], None]
    name: Text = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Strict):
    """``include_usage`` asks for a chunk with the token counts before the end."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GraftOptions(Strict):
    """graft's own field: ``filter`` is a condition on the passages' metadata, ``timeout`` the seconds that the caller waits at most.
    ``events``: a stream also tells of nodes, of the tokens' probabilities and of what the method thinks of its own text."""

    filter: _Filter = None
    timeout: Annotated[float | None, Field(gt=0, le=86_400)] = None
    events: bool = False


class ChatRequest(Strict):
    """``POST /v1/chat/completions``."""

    model: str = Field(max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    graft: GraftOptions | None = None
    n: Annotated[int | None, Refused(1)] = None
    frequency_penalty: _FrequencyPenalty = None
    presence_penalty: _PresencePenalty = None
    max_completion_tokens: _Tokens = None
    max_tokens: _Tokens = None
    metadata: Annotated[dict[str, str] | None, NotFollowed()] = None
    parallel_tool_calls: _IgnoredFlag = None
    prompt_cache_key: _Ignored = None
    reasoning_effort: _Ignored = None
    safety_identifier: _Ignored = None
    seed: _Seed = None
    service_tier: _Ignored = None
    store: _IgnoredFlag = None
    temperature: _Temperature = None
    top_p: _TopP = None
    user: _Ignored = None
    verbosity: _Ignored = None
    audio: _Unsupported = None
    function_call: Annotated[Any, Refused("none")] = None
    functions: Annotated[Any, Refused([])] = None
    logit_bias: Annotated[Any, Refused({})] = None
    logprobs: Annotated[Any, Refused(False)] = None
    modalities: Annotated[Any, Refused(["text"])] = None
    prediction: _Unsupported = None
    response_format: Annotated[Any, Refused({"type": "text"})] = None
    stop: _Unsupported = None
    tool_choice: Annotated[Any, Refused("none")] = None
    tools: Annotated[Any, Refused([])] = None
    top_logprobs: _Unsupported = None
    web_search_options: _Unsupported = None

    def question(self) -> str:
        """The last user turn. Raises `RequestError` (400) if there is none, or if something is asked for that no pipeline gives."""
        refuse_unsupported(self)
        turns = [message for message in self.messages if message.role == "user"]
        if not turns:
            raise RequestError(400, "messages: there is no message of the role 'user' to answer", code="invalid_value")
        return checked_text(turns[-1].text, "messages: the last user message")

    def remarks(self, sampled: bool = False) -> list[str]:
        """What was given and not followed, for the answer's notes. ``sampled``: the pipeline takes a `SamplingRequest`."""
        remarks = not_followed(self, sampled=sampled)
        if len(self.messages) > 1:
            remarks.append(f"only the last user message was read, not the other {len(self.messages) - 1}")
        return remarks


def no_token_ids(prompt: Any) -> Any:
    """``prompt``, unless it is a list of anything but text: OpenAI's older routes also take lists of token ids."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], (str, bool)):
        raise PydanticCustomError("token_ids", "token ids are not taken, and nothing but text is; send a string")
    return prompt


class CompletionRequest(Strict):
    """``POST /v1/completions``. ``prompt`` is the question: a string, or a list of exactly one."""

    model: str = Field(max_length=200)
    prompt: Annotated[Union[str, Annotated[list[str], Field(min_length=1, max_length=1)]], BeforeValidator(no_token_ids)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    graft: GraftOptions | None = None
    n: Annotated[int | None, Refused(1)] = None
    best_of: Annotated[int | None, Refused(1)] = None
    frequency_penalty: _FrequencyPenalty = None
    presence_penalty: _PresencePenalty = None
    max_tokens: _Tokens = None
    seed: _Seed = None
    temperature: _Temperature = None
    top_p: _TopP = None
    user: _Ignored = None
    echo: Annotated[bool | None, Refused(False)] = None
    logit_bias: Annotated[Any, Refused({})] = None
    logprobs: Annotated[int | None, Refused()] = None
    stop: _Unsupported = None
    suffix: Annotated[str | None, Refused("")] = None

    def question(self) -> str:
        """The prompt. Raises `RequestError` (400) if it is empty, or if something is asked for that no pipeline gives."""
        refuse_unsupported(self)
        return checked_text(self.prompt if isinstance(self.prompt, str) else self.prompt[0], "prompt")

    def remarks(self, sampled: bool = False) -> list[str]:
        """What was given and not followed, for the answer's notes. ``sampled``: the pipeline takes a `SamplingRequest`."""
        return not_followed(self, sampled=sampled)


class RetrieveRequest(Strict):
    """``POST /v1/retrieve``: passages only, no model."""

    query: str
    k: int = Field(default=4, ge=1, le=MAX_K)
    filter: _Filter = None


def refuse_unsupported(request: Strict) -> None:
    """Raises `RequestError` (400) that names the first field marked `Refused` that asks for something."""
    for name, field in type(request).model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Refused):
                mark.check(name, getattr(request, name))


def sampling_of(request: Strict) -> SamplingRequest | None:
    """What the fields marked `Sampled` ask for; None if none was given. Of two that mean the same, the smaller one holds."""
    asked: dict[str, Any] = {}
    for name, field in type(request).model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Sampled) and (value := getattr(request, name)) is not None:
                asked[mark.setting] = min(value, asked.get(mark.setting, value))
    if "seed" in asked:
        asked["seed"] %= 2**63  # models take no negative ones; the same seed still gives the same text
    return SamplingRequest(**asked) if asked else None


def not_followed(request: Strict, why: str = "the pipeline decides how its model writes", *, sampled: bool = False) -> list[str]:
    """One note that names the fields that were given and are marked `NotFollowed` or, unless they are ``sampled``, `Sampled`; nothing if
    there are none."""
    kinds = (NotFollowed,) if sampled else (NotFollowed, Sampled)
    fields = type(request).model_fields.items()
    marked = sorted(name for name, field in fields if any(isinstance(mark, kinds) for mark in field.metadata))
    given = [name for name in marked if getattr(request, name) is not None]
    return [f"not followed: {', '.join(given)} ({why})"] if given else []


def parse(kind: type[M], body: bytes) -> M:
    """``body`` as a checked request. Raises `RequestError` (400) that names each wrong field.

    Malformed JSON, nesting beyond 200 levels, lone surrogates and text that is not UTF-8 are refused by the parser itself.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        shown = "; ".join(f"{_place(fault['loc'])}{fault['msg']}" for fault in faults[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise RequestError(400, f"{shown}{more}", code="invalid_value") from None


def _place(path: tuple[int | str, ...]) -> str:
    place = ".".join(str(part)[:60] for part in path)
    return f"{place}: " if place else ""


def checked_text(text: str, where: str) -> str:
    """``text`` stripped. Raises `RequestError` (400) if it is empty, too long or holds a NUL character."""
    stripped = text.strip()
    if not stripped:
        raise RequestError(400, f"{where} is empty", code="invalid_value")
    if len(stripped) > MAX_QUESTION:
        raise RequestError(
            400, f"{where} has {len(stripped):,} characters; at most {MAX_QUESTION:,} are taken", code="string_above_max_length"
        )
    if "\0" in stripped:
        raise RequestError(400, f"{where} holds a NUL character", code="invalid_value")
    return stripped
