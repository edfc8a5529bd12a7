"""``/v1/documents``: bring documents, see which there are, delete them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from rag.serve.contract import documented
from rag.serve.documents.indexing import IndexDocuments, IndexFiles
from rag.serve.documents.parsing import Parser
from rag.serve.documents.receiving import Receiver, SentDocuments
from rag.serve.documents.shelf import Shelf
from rag.serve.errors import RequestError, to_request_error
from rag.serve.job_answers import DocumentList, DocumentsDeleted, DocumentShown, JobState
from rag.serve.jobs import Job, Jobs
from rag.serve.openai_types import Strict
from rag.serve.query import Count, parse_query
from rag.serve.waiting import GONE
from retrievers.corpus.manifest import DocumentRecord

MAX_PAGE = 1_000

_UNREAD = frozenset({408, 413, 415, 429, 503, 507})
"""The rest of the body may still be on its way; the connection ends, so that nobody has to wait for it."""

_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "minItems": 1, "items": {"type": "string", "contentMediaType": "application/octet-stream"}}},
}
_LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100}}
_AFTER = {"name": "after", "in": "query", "schema": {"type": "string", "maxLength": 2_048}}


def routes(shelf: Shelf, jobs: Jobs, receiver: Receiver, parser: Parser) -> APIRouter:
    """The router."""
    router, group = APIRouter(), _Documents(shelf, jobs, receiver, parser)
    taken = {"multipart/form-data": _FORM, "application/json": SentDocuments}
    upload = documented("Bring documents", takes=taken, gives={202: JobState}, errors=(429, 500, 503, 507))
    page = documented("List documents", gives={200: DocumentList}, errors=(400, 500), parameters=[_LIMIT, _AFTER])
    one = documented("Show a document", gives={200: DocumentShown}, errors=(400, 404, 500), parameters=[_LIMIT])
    gone = documented("Delete a document", gives={200: DocumentsDeleted}, errors=(404, 500, 503, 507))
    router.post("/v1/documents", response_model=None, openapi_extra=upload)(group.upload)
    router.get("/v1/documents", response_model=None, openapi_extra=page)(group.page)
    router.get("/v1/documents/{id:path}", response_model=None, openapi_extra=one)(group.one)
    router.delete("/v1/documents/{id:path}", response_model=None, openapi_extra=gone)(group.delete)
    return router


class Page(Strict):
    """Which documents are listed: at most ``limit``, after the id ``after``."""

    limit: Count = Field(100, ge=1, le=MAX_PAGE)
    after: str = Field("", max_length=2_048)


class Shown(Strict):
    """How many passages of a document are shown."""

    limit: Count = Field(100, ge=1, le=MAX_PAGE)


@dataclass(frozen=True)
class _Documents:
    shelf: Shelf
    jobs: Jobs
    receiver: Receiver
    parser: Parser

    async def upload(self, request: Request) -> Response:
        """202 with the job that indexes them. A form may be sent (parts named ``file``), or JSON (``documents``)."""
        try:
            self.jobs.check_room()
            job = await self._receive(request)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Exception as error:
            told = to_request_error(error)
            close = {"Connection": "close"} if told.status in _UNREAD else {}
            return JSONResponse(told.body(), told.status, {**told.headers, **close})
        return JSONResponse(job.describe(), 202, {"Location": f"/v1/jobs/{job.id}"})

    async def page(self, request: Request) -> Response:
        """The documents by id, page by page; ``next`` is what ``after`` must be for the next one, null at the end."""
        asked = parse_query(Page, request)
        found = await self.shelf.page(asked.after, asked.limit + 1)
        data = [_describe(record) for record in found[: asked.limit]]
        more = data[-1]["id"] if len(found) > asked.limit else None
        return JSONResponse({"object": "list", "data": data, "next": more})

    async def one(self, request: Request, id: str) -> Response:
        """One document with its first passages."""
        asked = parse_query(Shown, request)
        found = await self.shelf.document(id, asked.limit)
        if found is None:
            raise _unknown(id)
        record, passages = found
        content = [
            {"id": passage.id, "text": passage.text, "title": passage.title, "start": passage.start, "end": passage.end}
            for passage in passages
        ]
        return JSONResponse({**_describe(record), "content": content})

    async def delete(self, id: str) -> Response:
        """The number of documents that were deleted: the records, if it was a table."""
        try:
            deleted = await self.shelf.delete(id)
        except Exception as error:
            raise to_request_error(error) from error
        if not deleted:
            raise _unknown(id)
        return JSONResponse({"object": "documents.deleted", "id": id, "deleted": deleted})

    async def _receive(self, request: Request) -> Job:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        work: IndexFiles | IndexDocuments
        if kind == "multipart/form-data":
            work, unit = IndexFiles(await self.receiver.files(request), self.parser, self.shelf), "files"
            total = len(work.uploads)
        elif kind == "application/json":
            work, unit = IndexDocuments(await self.receiver.documents(request), self.shelf), "documents"
            total = work.documents.documents
        else:
            raise RequestError(415, "send multipart/form-data or application/json", code="unsupported_media_type")
        try:
            return self.jobs.start("documents", work, unit=unit, total=total, after=work.remove)
        except BaseException:
            work.remove()
            raise


def _describe(record: DocumentRecord) -> dict[str, Any]:
    """Without its source, which for documents that were indexed from a folder is a path of the server."""
    return {
        "object": "document",
        "id": record.id,
        "title": record.title,
        "format": record.format,
        "metadata": dict(record.metadata),
        "passages": record.passages,
    }


def _unknown(id: str) -> RequestError:
    return RequestError(404, f"there is no document {id[:80]!r}", code="not_found")
