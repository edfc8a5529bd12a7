"""What is told of documents and jobs: shapes for the OpenAPI document. The routes build them; no answer is validated at run time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from rag.serve.openai_answers import ErrorDetail, Whole


class JobProgress(BaseModel):
    """``done`` of ``total`` (null while nobody knows) in ``unit``."""

    done: Whole
    total: Whole | None
    unit: str


class JobState(BaseModel):
    """A job as it is now. ``result`` depends on its kind; of one that failed or was cancelled it says what stays."""

    object: Literal["job"]
    id: str
    kind: str
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: JobProgress
    result: dict[str, Any] | None
    error: ErrorDetail | None
    created: int
    finished: int | None


class JobList(BaseModel):
    """Those that are remembered, the newest first."""

    object: Literal["list"]
    data: list[JobState]


class DocumentCard(BaseModel):
    """A document, without its text."""

    object: Literal["document"]
    id: str
    title: str
    format: str
    metadata: dict[str, Any]
    passages: Whole


class DocumentList(BaseModel):
    """One page, by id; ``next`` is what ``after`` must be for the next one, null at the end."""

    object: Literal["list"]
    data: list[DocumentCard]
    next: str | None


class DocumentPassage(BaseModel):
    """A passage of a document, with its place in it in characters."""

    id: str
    text: str
    title: str
    start: int
    end: int


class DocumentShown(DocumentCard):
    """A document with its first passages."""

    content: list[DocumentPassage]


class DocumentsDeleted(BaseModel):
    """How many went: of a table, all its records."""

    object: Literal["documents.deleted"]
    id: str
    deleted: Annotated[int, Field(ge=1)]
