"""``/v1/jobs``: what was asked for and is not done at once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse

from rag.serve.contract import LAST_EVENT, Events, documented
from rag.serve.job_answers import JobList, JobState
from rag.serve.jobs import Jobs

_SEND_SECONDS = 30.0
"""How long a listener may leave an event unread."""
_END = "end"
"""The id of the last event."""


def routes(jobs: Jobs) -> APIRouter:
    """The router."""
    router, group = APIRouter(), _Jobs(jobs)
    told = {200: {"text/event-stream": Events(JobState)}, 204: None}
    router.get("/v1/jobs", response_model=None, openapi_extra=documented("List jobs", gives={200: JobList}))(group.all)
    one, cancelled = (documented(f"{act} a job", gives={200: JobState}, errors=(404,)) for act in ("Show", "Cancel"))
    router.get("/v1/jobs/{id}", response_model=None, openapi_extra=one)(group.one)
    router.delete("/v1/jobs/{id}", response_model=None, openapi_extra=cancelled)(group.cancel)
    watched = documented("Watch a job", gives=told, errors=(404, 429), parameters=[LAST_EVENT])
    router.get("/v1/jobs/{id}/events", response_model=None, openapi_extra=watched)(group.events)
    return router


@dataclass(frozen=True)
class _Jobs:
    jobs: Jobs

    async def all(self) -> Response:
        """All that are remembered, the newest first."""
        return JSONResponse({"object": "list", "data": [job.describe() for job in self.jobs.all()]})

    async def one(self, id: str) -> Response:
        """How far it is, and what came of it."""
        return JSONResponse(self.jobs.get(id).describe())

    async def cancel(self, id: str) -> Response:
        """The job as it then is: "cancelled", "running" while it still finishes a commit, or what it was if it had ended before."""
        return JSONResponse((await self.jobs.cancel(id)).describe())

    async def events(self, request: Request, id: str) -> Response:
        """Server-sent events: the job now and after each change; the last one says how it ended, and has an id: an EventSource that has
        seen it and connects again is told to stop."""
        if request.headers.get("last-event-id") == _END:
            return Response(status_code=204)
        job = self.jobs.get(id)
        self.jobs.check_listeners()
        stopping = anyio.Event()
        states = _told(self.jobs.watch(job, stopping.wait))
        return EventSourceResponse(states, sep="\n", send_timeout=_SEND_SECONDS, shutdown_event=stopping, shutdown_grace_period=2)


async def _told(states: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[dict[str, str]]:
    async with aclosing(states):
        async for state in states:
            event = {"data": json.dumps(state, ensure_ascii=False, separators=(",", ":"))}
            yield event if state["finished"] is None else event | {"id": _END}
