"""Errors in OpenAI's shape: ``{"error": {"message", "type", "code"}}``.

What the caller did wrong is told in full. What went wrong inside is told without paths, addresses or tracebacks: those go to the log,
under the same number.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from rag.core.errors import CorpusError, CorpusLocked, GraftError, InputError, ModelUnavailable, NodeTimeout, PromptTooLong
from rag.serve.observe.logs import current_request_id

log = logging.getLogger("graft.serve")


class RequestError(Exception):
    """An error with its HTTP status, ready to be sent."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.retry_after = retry_after
        """Whole seconds after which the caller may try again."""

    @property
    def headers(self) -> dict[str, str]:
        """What goes over the wire before the body."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def body(self) -> dict[str, Any]:
        """What goes over the wire."""
        return {"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}}


def to_request_error(error: BaseException) -> RequestError:
    """Map any exception to what the caller may see; the rest is logged."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputError):
        return RequestError(400, str(error), code="invalid_value")
    if isinstance(error, PromptTooLong):
        return RequestError(400, str(error), code="context_length_exceeded")
    number = current_request_id() or uuid.uuid4().hex[:12]
    if isinstance(error, GraftError):
        log.error("request %s: %s: %s", number, type(error).__name__, error, exc_info=error.__cause__)
    else:
        log.error("request %s failed", number, exc_info=error)
    if isinstance(error, ModelUnavailable):
        return _inside(503, "the language model does not answer at the moment; try again later", "model_unavailable", number)
    if isinstance(error, CorpusLocked):
        return _inside(503, "the corpus is busy; try again later", "corpus_busy", number)
    if isinstance(error, CorpusError):
        return _inside(500, "the corpus cannot serve", "corpus_error", number)
    if isinstance(error, NodeTimeout):
        return _inside(504, f"the step '{error.node}' took longer than its time limit", "timeout", number)
    return _inside(500, "internal error", "internal_error", number)


def _inside(status: int, message: str, code: str, number: str) -> RequestError:
    return RequestError(status, f"{message} (request {number}; the server's log has the reason)", type="server_error", code=code)
