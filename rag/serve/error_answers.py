"""Every error of an application answered in the one documented shape."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from rag.serve.errors import RequestError, to_request_error


def answer_errors(app: FastAPI) -> None:
    """What ``app`` raises, and what Starlette says of paths and methods, becomes an answer."""
    app.add_exception_handler(RequestError, answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)


async def answer_error(request: Request, error: Exception) -> Response:
    """Any exception, as what the caller may see of it."""
    known = to_request_error(error)
    return JSONResponse(known.body(), known.status, known.headers)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "internal error")
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    message = f"{request.method} {request.url.path}: {detail}" if status in (404, 405) else str(detail)
    headers = {"Allow": ", ".join(sorted(_methods(request)))} if status == 405 else None
    return JSONResponse(RequestError(status, message, code=code).body(), status, headers)


def _methods(request: Request) -> set[str]:
    """What this path may be asked with. Starlette's own header names the methods of one route, and a path may have several."""
    found = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in found for method in getattr(route, "methods", None) or ()}
