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

from rag.serve.contract import Events, documented
from rag.serve.job_answers import JobList, JobState
from rag.serve.jobs import Jobs

_SEND_SECONDS = 30.0
"""How long a listener may leave an event unread."""


def routes(jobs: Jobs) -> APIRouter:
    """The router."""
    router, group = APIRouter(), _Jobs(jobs)
    told = {200: {"text/event-stream": Events(JobState)}}
    router.get("/v1/jobs", response_model=None, openapi_extra=documented("List jobs", gives={200: JobList}))(group.all)
    one, cancelled = (documented(f"{act} a job", gives={200: JobState}, errors=(404,)) for act in ("Show", "Cancel"))
    router.get("/v1/jobs/{id}", response_model=None, openapi_extra=one)(group.one)
    router.delete("/v1/jobs/{id}", response_model=None, openapi_extra=cancelled)(group.cancel)
    watched = documented("Watch a job", gives=told, errors=(404, 429))
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
        """Server-sent events: the job now and after each change; the last one says how it ended."""
        job = self.jobs.get(id)
        self.jobs.check_listeners()
        stopping = anyio.Event()
        states = _texts(self.jobs.watch(job, stopping.wait))
        return EventSourceResponse(states, sep="\n", send_timeout=_SEND_SECONDS, shutdown_event=stopping, shutdown_grace_period=2)


async def _texts(states: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[str]:
    async with aclosing(states):
        async for state in states:
            yield json.dumps(state, ensure_ascii=False, separators=(",", ":"))
