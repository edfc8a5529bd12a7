"""What the answers look like: shapes for the OpenAPI document, and for whoever checks answers against it. No answer is validated at run
time; `rag.serve.chat`, `rag.serve.completions` and `rag.serve.describe` build them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, Field

ABSENT: Any = Field(default_factory=lambda: None)
"""Marks a field that may be left out, and is not null where it is given."""

Whole = Annotated[int, Field(ge=0)]


class ErrorDetail(BaseModel):
    """What was wrong, and a word for programs."""

    message: str
    type: str
    param: None
    code: str | None


class Error(BaseModel):
    """Every error has this shape."""

    error: ErrorDetail


class Notes(BaseModel):
    """graft's own part of an answer without sources: remarks on it."""

    notes: list[str]


class Usage(BaseModel):
    """Tokens of every model call of the run."""

    prompt_tokens: Whole
    completion_tokens: Whole
    total_tokens: Whole


class Source(BaseModel):
    """A passage that was found; "[number]" in the text refers to it."""

    number: Annotated[int, Field(ge=1)]
    id: str
    document: str
    title: str
    text: str
    start: int
    end: int
    metadata: dict[str, Any]
    score: float
    retriever: str


class CitationMark(BaseModel):
    """A marker in the text, from ``start`` to ``end`` in characters."""

    number: int
    id: str
    document: str
    start: Whole
    end: Whole
    supported: float
    valid: bool


class Grounds(BaseModel):
    """graft's own part of an answer. ``text``: the final text, where it is not what was streamed."""

    sources: list[Source]
    citations: list[CitationMark]
    notes: list[str]
    refused: bool
    text: str = ABSENT


class FoundPassage(BaseModel):
    """A passage in a step."""

    id: str
    document: str
    title: str
    score: float


class RetrievedStep(BaseModel):
    """The pipeline searched."""

    type: Literal["retrieved"]
    query: str
    passages: list[FoundPassage]


class ToolStep(BaseModel):
    """The pipeline called a tool."""

    type: Literal["tool_called"]
    tool: str
    input: str
    output: str
    error: str


class NodeStartedStep(BaseModel):
    """A node of the graph began."""

    type: Literal["node_started"]
    node: str


class NodeFinishedStep(BaseModel):
    """A node of the graph ended. ``error``: the kind of the error with which it did."""

    type: Literal["node_finished"]
    node: str
    seconds: Annotated[float, Field(ge=0)]
    error: str = ABSENT


TokenPair = Annotated[list[Union[str, float]], Field(min_length=2, max_length=2)]
"""A token's text and its probability in [0, 1]."""


class TokensStep(BaseModel):
    """The tokens of the text before this, each with the probability that the model gave it."""

    type: Literal["tokens"]
    tokens: list[TokenPair]


class DoubtedStep(BaseModel):
    """A sentence written ahead holds tokens of a probability below ``theta`` (``weak``), so the pipeline searches for ``queries``."""

    type: Literal["doubted"]
    sentence: str
    weak: list[TokenPair]
    theta: float
    queries: list[str]


class JudgedStep(BaseModel):
    """What the model thinks of a segment that it wrote from the passage ``source`` (an id; "" for none)."""

    type: Literal["judged"]
    text: str
    source: str
    score: float
    relevance: float
    support: float
    utility: float
    likelihood: float
    dropped: bool


class Step(BaseModel):
    """graft's own part of a chunk without text. All kinds but the first two only where the request's ``graft.events`` asks for them."""

    event: Union[RetrievedStep, ToolStep, NodeStartedStep, NodeFinishedStep, TokensStep, DoubtedStep, JudgedStep]


class AssistantMessage(BaseModel):
    """The answer's text, and what it rests on."""

    role: Literal["assistant"]
    content: str
    refusal: None
    graft: Grounds


class ChatChoice(BaseModel):
    """The only choice."""

    index: Literal[0]
    message: AssistantMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class ChatAnswer(BaseModel):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: Annotated[list[ChatChoice], Field(min_length=1, max_length=1)]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds."""

    role: Literal["assistant"] = ABSENT
    content: str = ABSENT


class ChatPiece(BaseModel):
    """The only choice of a chunk."""

    index: Literal[0]
    delta: Delta
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(BaseModel):
    """A piece of a streamed chat completion. The piece with ``usage`` has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: Annotated[list[ChatPiece], Field(max_length=1)]
    usage: Usage = ABSENT
    graft: Union[Grounds, Step] = ABSENT


class TextChoice(BaseModel):
    """The only choice: the text, and what it rests on."""

    index: Literal[0]
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length"]
    graft: Grounds


class TextAnswer(BaseModel):
    """A text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: Annotated[list[TextChoice], Field(min_length=1, max_length=1)]
    usage: Usage


class TextPiece(BaseModel):
    """The only choice of a chunk."""

    index: Literal[0]
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class TextChunk(BaseModel):
    """A piece of a streamed text completion. The piece with ``usage`` has no choices."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: Annotated[list[TextPiece], Field(max_length=1)]
    usage: Usage = ABSENT
    graft: Union[Grounds, Step] = ABSENT


class ModelCard(BaseModel):
    """A name that ``model`` may have."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """What is served."""

    object: Literal["list"]
    data: list[ModelCard]


class NodeCard(BaseModel):
    """A node of a graph, and the name of its component."""

    name: str
    type: str


class EdgeCard(BaseModel):
    """``source.output`` into ``target.port``. ``call``: as a function; ``loop``: how often the edge may be followed in one run."""

    source: str
    output: str
    target: str
    port: str
    call: bool
    loop: Annotated[int, Field(ge=1)] | None


class Drawing(BaseModel):
    """A graph and its pictures. ``problem``: what keeps it from running."""

    object: Literal["drawing"]
    nodes: list[NodeCard]
    edges: list[EdgeCard]
    mermaid: str
    svg: str
    problem: str | None


class PipelineCard(BaseModel):
    """A pipeline that is served. ``yaml`` is null where ``note`` says why."""

    id: str
    object: Literal["pipeline"]
    nodes: list[NodeCard]
    edges: list[EdgeCard]
    mermaid: str
    svg: str
    yaml: str | None
    note: str | None


class PipelineList(BaseModel):
    """All pipelines, in the order in which they are served."""

    object: Literal["list"]
    data: list[PipelineCard]


class RetrieveAnswer(BaseModel):
    """Passages, best first."""

    object: Literal["list"]
    hits: list[Source]


class ModelHealth(BaseModel):
    """Whether a language model answers; only one that does tells its name."""

    type: str
    name: str = ABSENT
    status: Literal["ok", "unavailable"]


class HealthAnswer(BaseModel):
    """Whether the server can answer. ``engine``: what the model server that it runs itself is about, while that is not ready."""

    status: Literal["ok", "unavailable"]
    passages: Whole
    models: list[ModelHealth]
    engine: Literal["starting", "restarting", "failed", "stopped"] = ABSENT


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class AdapterCard(BaseModel):
    """An adapter, the names under which it is asked, and whether a vLLM server has it loaded (null: no model is on one)."""

    id: str
    object: Literal["adapter"]
    method: str
    base: str
    bytes: Whole
    metrics: dict[str, Any]
    loaded: bool | None
    models: list[str]
    problem: str | None


class AdapterList(BaseModel):
    """All adapters, by name."""

    object: Literal["list"]
    data: list[AdapterCard]
