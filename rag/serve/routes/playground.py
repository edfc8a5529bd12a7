"""``/``: a page to ask the pipelines from, and ``/playground/NAME``, the files that it is made of. They hold no data and need no key: the
page's script sends the key that its user types in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from rag.serve.errors import RequestError

_SCRIPT = "text/javascript; charset=utf-8"
FILES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        (
            "answer.js",
            "citations.js",
            "client.js",
            "column.js",
            "dom.js",
            "graph.js",
            "main.js",
            "sources.js",
            "steps.js",
            "upload.js",
            "yaml.js",
        ),
        _SCRIPT,
    ),
}
"""The files of the page and their media types. Nothing else can be asked for."""


def routes() -> APIRouter:
    """The router. The files are read now, and not again."""
    page = _Page({name: _File.of(name, kind) for name, kind in FILES.items()})
    router = APIRouter()
    for path, answer in (("/", page.index), ("/playground/{name}", page.file)):
        router.add_api_route(path, answer, methods=["GET", "HEAD"], response_model=None, include_in_schema=False)
    return router


@dataclass(frozen=True)
class _File:
    data: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, name: str, kind: str) -> _File:
        data = files("rag.serve.playground").joinpath(name).read_bytes()
        # Always asked for again, and sent only if it has changed: after an update nobody sees a page of two versions.
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        return cls(data, {"Content-Type": kind, "ETag": tag, "Cache-Control": "no-cache"})

    def answer(self, request: Request) -> Response:
        """The file, or 304 for a browser that has it."""
        known = request.headers.get("if-none-match", "")
        if any(tag.strip().removeprefix("W/") in ("*", self.headers["ETag"]) for tag in known.split(",")):
            return Response(status_code=304, headers=self.headers)
        return Response(self.data, headers=self.headers)


@dataclass(frozen=True)
class _Page:
    files: dict[str, _File]

    async def index(self, request: Request) -> Response:
        """The page."""
        return self.files["index.html"].answer(request)

    async def file(self, request: Request, name: str) -> Response:
        """One of its files; 404 for every other name."""
        if name not in self.files:
            raise RequestError(404, f"the playground has no file {name[:80]!r}", code="not_found")
        return self.files[name].answer(request)
