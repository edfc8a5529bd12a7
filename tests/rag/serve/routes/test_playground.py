from __future__ import annotations

import re
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

from rag.serve.app import create_app
from rag.serve.doors.origins import CONTENT_POLICY
from rag.serve.routes.playground import FILES
from rag.serve.settings import Doors
from tests.rag.serve.parts import pipeline


@pytest.fixture
def http() -> TestClient:
    return TestClient(create_app(pipeline()), base_url="http://localhost", raise_server_exceptions=False)


def part(name: str) -> str:
    return files("rag.serve.playground").joinpath(name).read_text("utf-8")


def test_the_page_is_open_and_guarded(http: TestClient) -> None:
    locked = TestClient(create_app(pipeline(), doors=Doors(secret="s3cret")), base_url="http://localhost")
    for client in (http, locked):
        reply = client.get("/")
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert reply.headers["content-security-policy"] == CONTENT_POLICY
        assert reply.text == part("index.html")
        assert client.get("/playground/main.js").status_code == 200


@pytest.mark.parametrize("name", FILES)
def test_each_file_has_its_kind_and_is_sent_once(http: TestClient, name: str) -> None:
    reply = http.get(f"/playground/{name}")
    assert (reply.status_code, reply.headers["content-type"]) == (200, FILES[name])
    assert (reply.text, reply.headers["cache-control"]) == (part(name), "no-cache")
    assert reply.headers["x-content-type-options"] == "nosniff"
    tag = reply.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = http.get(f"/playground/{name}", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    for other in ('"other"', tag.strip('"'), ""):
        assert http.get(f"/playground/{name}", headers={"if-none-match": other}).status_code == 200
    head = http.head(f"/playground/{name}")
    assert (head.status_code, head.headers["etag"], head.headers["content-length"]) == (200, tag, reply.headers["content-length"])


def test_every_file_of_the_folder_is_in_the_table() -> None:
    found = {entry.name for entry in files("rag.serve.playground").iterdir() if entry.is_file()}
    assert found - {"__init__.py"} == set(FILES)


@pytest.mark.parametrize(
    "name",
    ["nothing.js", "__init__.py", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "..%5capp.py", "/etc/passwd", "main.js/", "MAIN.JS", ""],
)
def test_nothing_else_can_be_asked_for(http: TestClient, name: str) -> None:
    reply = http.get(f"/playground/{name}", follow_redirects=False)
    assert reply.status_code in (404, 307)  # 307: to the same path without its slash at the end
    assert b"import" not in reply.content
    assert http.post("/playground/main.js").status_code == 405


def test_the_page_needs_nothing_that_its_policy_forbids() -> None:
    page = part("index.html")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\bsrc=)", page)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address.startswith("#") or address.removeprefix("playground/") in FILES
    for name in FILES:
        text = part(name)
        if name.endswith(".js"):
            assert "innerHTML" not in text
            assert not re.search(r"outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|createContextualFragment", text)
            assert all(found.removeprefix("./") in FILES for found in re.findall(r'^import .* from "([^"]+)"', text, re.MULTILINE))
        assert not re.search(r"(?:https?:)?//[a-z]", text.replace("http://www.w3.org/2000/svg", "")), name
