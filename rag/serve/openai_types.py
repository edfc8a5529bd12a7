"""The requests that are taken, checked strictly: a number is a number (not "10", true or NaN), and an unknown field is refused.

Fields of OpenAI's chat completions fall in three groups. Used: ``model``, ``messages``, ``stream``, ``stream_options``. Accepted and not
followed, because the pipeline decides how its model writes (`IGNORED`; the answer names those that were set). Refused with 400, because
the answer would not be what was asked for: tools, several choices, log-probabilities, structured output, stop strings (`REFUSED`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.serve.errors import RequestError

MAX_K = 100
MAX_MESSAGES = 1_000
MAX_QUESTION = 20_000
"""Characters of a question or query."""

IGNORED = (
    "frequency_penalty",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "temperature",
    "top_p",
    "user",
    "verbosity",
)
REFUSED = (
    "audio",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "modalities",
    "prediction",
    "response_format",
    "stop",
    "tool_choice",
    "tools",
    "top_logprobs",
    "web_search_options",
)

M = TypeVar("M", bound=BaseModel)
_Penalty = Annotated[float | None, Field(ge=-2, le=2)]
_Tokens = Annotated[int | None, Field(ge=1, le=2**31 - 1)]
_Text = Annotated[str | None, Field(max_length=1_000)]
_Filter = dict[str, Any] | None


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", hide_input_in_errors=True)


class TextPart(_Strict):
    """A text part of a message. Images and audio are not read."""

    type: Literal["text"]
    text: str


class ChatMessage(_Strict):
    """One turn. The last turn of the role "user" is the question."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Union[str, list[TextPart], None]
    name: _Text = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Strict):
    """``include_usage`` asks for a chunk with the token counts before the end."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GraftOptions(_Strict):
    """graft's own field: ``filter`` is a condition on the passages' metadata, ``timeout`` the seconds that the caller waits at most."""

    filter: _Filter = None
    timeout: Annotated[float | None, Field(gt=0, le=86_400)] = None


class ChatRequest(_Strict):
    """``POST /v1/chat/completions``."""

    model: str = Field(max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    graft: GraftOptions | None = None
    n: int | None = None
    frequency_penalty: _Penalty = None
    presence_penalty: _Penalty = None
    max_completion_tokens: _Tokens = None
    max_tokens: _Tokens = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: _Text = None
    reasoning_effort: _Text = None
    safety_identifier: _Text = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    service_tier: _Text = None
    store: bool | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    user: _Text = None
    verbosity: _Text = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    modalities: Any = None
    prediction: Any = None
    response_format: Any = None
    stop: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    web_search_options: Any = None

    def question(self) -> str:
        """The last user turn. Raises `RequestError` (400) if there is none, or if something is asked for that no pipeline gives."""
        self._refuse_unsupported()
        turns = [message for message in self.messages if message.role == "user"]
        if not turns:
            raise RequestError(400, "messages: there is no message of the role 'user' to answer", code="invalid_value")
        return checked_text(turns[-1].text, "messages: the last user message")

    def remarks(self) -> list[str]:
        """What was given and not followed, for the answer's notes."""
        given = [name for name in IGNORED if getattr(self, name) is not None]
        remarks = [f"not followed: {', '.join(given)} (the pipeline decides how its model writes)"] if given else []
        if len(self.messages) > 1:
            remarks.append(f"only the last user message was read, not the other {len(self.messages) - 1}")
        return remarks

    def _refuse_unsupported(self) -> None:
        if self.n is not None and self.n != 1:
            raise RequestError(400, f"n: only 1 is supported, not {self.n}", code="unsupported_value")
        harmless = {"response_format": {"type": "text"}, "modalities": ["text"], "logprobs": False, "tools": [], "tool_choice": "none"}
        for name in REFUSED:
            value = getattr(self, name)
            if value not in (None, {}) and value != harmless.get(name):
                raise RequestError(400, f"{name}: not supported by this server; leave it out", code="unsupported_parameter")


class RetrieveRequest(_Strict):
    """``POST /v1/retrieve``: passages only, no model."""

    query: str
    k: int = Field(default=4, ge=1, le=MAX_K)
    filter: _Filter = None


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
