"""The browser's own EventSource, as it is, against ``GET /v1/answers``; and pages of other origins that try the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from tests.browser.playground.parts import CITED, QUESTION, Visit
from tests.rag.serve.parts import Scripted, listening, pipeline
from tests.rag.serve.routes.test_answers import server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ANSWERS = f"/v1/answers?{urlencode({'model': 'graft', 'question': QUESTION})}"
# Until it gives up: it connects again by itself when the stream ends, and only an answer of 204 stops that.
LISTEN = """address => new Promise(done => {
  const heard = [], source = new EventSource(address);
  source.onmessage = event => heard.push([event.lastEventId, event.data]);
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) done(heard); };
})"""
TEXT = "heard => heard.slice(0, -1).map(([, data]) => JSON.parse(data).choices[0].delta.content ?? '').join('')"


def test_a_plain_event_source_hears_the_whole_answer_once(visit: Visit) -> None:
    with listening(server(pipeline(Scripted(CITED)))) as address:
        _check_that_it_hears_all_once(visit(address).page)


def _check_that_it_hears_all_once(page: Page) -> None:
    statuses: list[int] = []
    page.on("response", lambda reply: statuses.append(reply.status) if "/v1/answers" in reply.url else None)
    heard: list[Any] = page.evaluate(LISTEN, ANSWERS)
    assert heard[-1][1] == "[DONE]"
    assert [id for id, _ in heard] == [str(number) for number in range(1, len(heard) + 1)]
    assert page.evaluate(TEXT, heard) == CITED
    assert statuses == [200, 204]
    page.wait_for_timeout(200)
    assert statuses == [200, 204]


WAYS = {
    "an EventSource": "src => { new EventSource(src); }",
    "a picture": "src => { new Image().src = src; }",
    "a request that hides its answer": "src => { fetch(src, {mode: 'no-cors', headers: {Accept: 'text/event-stream'}}); }",
    "a frame": "src => { document.body.append(Object.assign(document.createElement('iframe'), {src})); }",
    "a script": "src => { document.body.append(Object.assign(document.createElement('script'), {src})); }",
    "a link": "href => { document.body.append(Object.assign(document.createElement('a'), {href})); document.links[0].click(); }",
}


class Seen:
    """Notes the status of every answer of ``app`` to a question in an address."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.statuses: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start" and scope["path"] == "/v1/answers":
                self.statuses.append(message["status"])
            await send(message)

        await self.app(scope, receive, noted)


@pytest.mark.parametrize("script", WAYS.values(), ids=WAYS)
def test_a_foreign_page_cannot_ask(visit: Visit, script: str) -> None:
    model = Scripted()
    seen: Any = Seen(server(pipeline(model)))
    stranger = FastAPI()
    stranger.get("/")(lambda: HTMLResponse("<!doctype html><title>Stranger</title><p>Hello"))
    with listening(seen) as address, listening(stranger) as elsewhere:
        page = visit(elsewhere).page
        page.evaluate(script, f"{address}/v1/answers?model=graft&question=x")
        for _ in range(100):
            if seen.statuses:
                break
            page.wait_for_timeout(50)
        page.context.close()
    assert set(seen.statuses) == {403}
    assert model.prompts == []
