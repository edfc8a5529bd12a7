from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.core.errors import ConfigError, InputError, RunError
from rag.core.registry import configuration, registered
from tools.openapi import OpenAPITool, openapi_tools
from tools.openapi.document import Document, read_document
from tools.tool import Tool, call_tool

SHOP = str(Path(__file__).with_name("shop.yaml"))
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is at a public address, and nothing is asked for it."""

    async def found(host: str, port: int) -> list[str]:
        return ["203.0.114.9"]

    monkeypatch.setattr("tools.network.lookup", found)


def ok(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"price": 12.5})


class Shop:
    """A tool of the shop whose network is ``answer``; ``requests`` are what it was sent."""

    def __init__(self, operation: str = "get-item", answer: Answer = ok, spec: Any = SHOP, **options: Any) -> None:
        self.requests: list[httpx.Request] = []
        self.tool = OpenAPITool(spec, operation, **options)

        def record(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return answer(request)

        self.tool.transport = httpx.MockTransport(record)

    def __call__(self, **arguments: Any) -> str:
        return asyncio.run(self.tool.acall(arguments))

    def sent(self, **arguments: Any) -> httpx.Request:
        self(**arguments)
        return self.requests[-1]


def document(**operation: Any) -> dict[str, Any]:
    """A description of one operation."""
    return {"openapi": "3.1.0", "servers": [{"url": "https://example.com"}], "paths": {"/x": {"post": {"operationId": "x", **operation}}}}


# -- what a model is told ---------------------------------------------------------------------------------------------------------------


def test_it_is_a_tool_with_the_operations_words() -> None:
    tool = Shop().tool
    assert isinstance(tool, Tool)
    assert (tool.name, tool.description) == ("get_item", "One item. With its price")
    assert tool.schema["required"] == ["item"]
    assert tool.schema["additionalProperties"] is False
    assert tool.schema["properties"]["item"] == {"type": "string", "description": "Its number."}


def test_headers_and_cookies_that_a_caller_must_not_set_are_not_offered() -> None:
    assert list(Shop().tool.schema["properties"]) == ["item", "fields", "tags", "filter", "where", "since", "X-Trace"]


def test_the_schema_is_plain_json_and_refers_to_nothing() -> None:
    body = Shop("put_item").tool.schema["properties"]["body"]
    assert body["required"] == ["name"]
    assert body["properties"]["name"] == {"type": ["string", "null"], "maxLength": 50}  # no pattern: it may take for ever to match
    assert "id" not in body["properties"]
    assert "$ref" not in json.dumps(body)
    assert Shop().tool.schema["properties"]["since"]["default"] == "2020-01-01"


def test_an_operation_without_an_id_has_its_method_and_path_and_equal_names_are_told_apart() -> None:
    tool = Shop("get_search").tool
    assert list(tool.schema["properties"]) == ["q", "query_item", "header_item"]


def test_all_operations_or_those_named() -> None:
    assert [tool.name for tool in openapi_tools(SHOP, only=["put_item", "get_search"])] == ["put_item", "get_search"]
    two = {"openapi": "3.0.0", "servers": [{"url": "https://example.com"}], "paths": {"/a": {"get": {}, "delete": {}}}}
    assert [tool.name for tool in openapi_tools(two)] == ["get_a", "delete_a"]


# -- what is sent -----------------------------------------------------------------------------------------------------------------------


def test_each_argument_goes_to_its_place() -> None:
    sent = Shop().sent(
        item="a/b ü", fields=["x", "y&z"], tags=["p", "q"], filter={"size": 3}, where={"a": [1]}, **{"X-Trace": True, "since": None}
    )
    assert sent.method == "GET"
    assert sent.url.raw_path.decode() == (
        "/v1/items/a%2Fb%20%C3%BC?fields=x&fields=y%26z&tags=p%2Cq&filter[size]=3&where=%7B%22a%22%3A%5B1%5D%7D"
    )
    assert sent.headers["x-trace"] == "true"
    assert sent.headers["host"] == "eu.shop.example.com"
    assert sent.url.host == "203.0.114.9"  # pinned


def test_a_body_is_json() -> None:
    sent = Shop("put_item").sent(item="7", body={"name": "bolt"})
    assert (sent.method, json.loads(sent.content), sent.headers["content-type"]) == ("PUT", {"name": "bolt"}, "application/json")


def test_the_answer_is_its_shortest_json_or_its_text_or_says_that_there_is_none() -> None:
    assert Shop()(item="7") == '{"price":12.5}'
    assert Shop(answer=lambda _: httpx.Response(200, text="plain"))(item="7") == "plain"
    assert Shop(answer=lambda _: httpx.Response(204))(item="7") == "(no content)"


@pytest.mark.parametrize("item", ["..", ".", ""])
def test_no_argument_leads_out_of_the_operations_path(item: str) -> None:
    shop = Shop()
    with pytest.raises(InputError, match="item"):
        shop(item=item)
    assert shop.requests == []


@pytest.mark.parametrize("item", ["../admin", "%2e%2e", "x?admin=1", "x#y", "//evil.example.com/", "@evil.example.com", "\r\nHost: evil"])
def test_what_a_model_writes_stays_within_its_segment(item: str) -> None:
    sent = Shop().sent(item=item)
    assert sent.url.raw_path.startswith(b"/v1/items/")
    assert sent.url.raw_path.count(b"/") == 3
    assert b"?" not in sent.url.raw_path
    assert sent.headers["host"] == "eu.shop.example.com"


def test_two_dots_from_two_arguments_are_seen_as_well() -> None:
    slots = [{"name": name, "in": "path", "required": True, "schema": {}} for name in "ab"]
    spec = {"openapi": "3.0.0", "servers": [{"url": "https://example.com"}], "paths": {"/x/{a}{b}": {"get": {"parameters": slots}}}}
    with pytest.raises(InputError):
        Shop("get_x_a_b", spec=spec)(a=".", b=".")


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nb", "ü", "\x00"])
def test_a_header_holds_one_line_of_ascii(value: str) -> None:
    with pytest.raises(InputError, match="X-Trace"):
        Shop()(item="7", **{"X-Trace": value})


@pytest.mark.parametrize(
    ("arguments", "reason"), [({}, "missing item"), ({"item": "7", "evil": 1}, "no argument 'evil'"), ({"item": None}, "missing item")]
)
def test_arguments_are_checked(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Shop()(**arguments)


# -- keys -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "header", "value"),
    [
        ({"type": "apiKey", "in": "header", "name": "X-Api-Key"}, "x-api-key", "s:cret"),
        ({"type": "apiKey", "in": "cookie", "name": "sid"}, "cookie", "sid=s:cret"),
        ({"type": "http", "scheme": "bearer"}, "authorization", "Bearer s:cret"),
        ({"type": "http", "scheme": "basic"}, "authorization", "Basic czpjcmV0"),
        ({"type": "oauth2", "flows": {}}, "authorization", "Bearer s:cret"),
        (None, "authorization", "Bearer s:cret"),
    ],
)
def test_the_key_goes_where_the_description_says(
    scheme: dict[str, Any] | None, header: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "s:cret")
    spec = document(security=[{"k": []}] if scheme else [])
    spec["components"] = {"securitySchemes": {"k": scheme}}
    assert Shop("x", spec=spec, api_key_env="SHOP_KEY").sent().headers[header] == value


def test_a_key_in_the_query_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "s3cret")
    spec = document(security=[{"k": []}])
    spec["components"] = {"securitySchemes": {"k": {"type": "apiKey", "in": "query", "name": "key"}}}

    def echo(request: httpx.Request) -> httpx.Response:
        assert request.url.params["key"] == "s3cret"
        return httpx.Response(403, text=f"no: {request.url}")

    with pytest.raises(RunError, match="HTTP 403") as raised:
        Shop("x", echo, spec, api_key_env="SHOP_KEY")()
    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in Shop("x", lambda request: httpx.Response(200, text=str(request.url)), spec, api_key_env="SHOP_KEY")()


def test_a_key_that_is_not_set_is_named_and_nothing_is_sent() -> None:
    shop = Shop(api_key_env="NO_SUCH_KEY_HERE")
    with pytest.raises(ConfigError, match="NO_SUCH_KEY_HERE"):
        shop(item="7")
    assert shop.requests == []


def test_a_fetched_description_does_not_choose_who_gets_the_key() -> None:
    read = read_document(SHOP)
    fetched = Document(read.root, "https://descriptions.example.org/shop.yaml")
    with pytest.raises(InputError, match=r"would send your key to eu\.shop\.example\.com; .* base_url"):
        OpenAPITool(fetched, "get-item", api_key_env="SHOP_KEY")
    assert OpenAPITool(fetched, "get-item", "https://eu.shop.example.com/v1", "SHOP_KEY").api_key_env == "SHOP_KEY"
    assert OpenAPITool(fetched, "get-item").name == "get_item"


# -- a service that fails ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_refusal_is_an_error_with_its_reason(status: int) -> None:
    with pytest.raises(RunError, match=f"GET https://eu.shop.example.com/v1/items/7: HTTP {status} .*: out of bolts"):
        Shop(answer=lambda _: httpx.Response(status, text="out of\nbolts"))(item="7")


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(RunError, match="'image/png', not text"):
        Shop(answer=lambda _: httpx.Response(200, content=b"\x89PNG", headers={"content-type": "image/png"}))(item="7")


def test_an_unknown_or_wrong_charset_does_no_harm() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"caf\xe9", headers={"content-type": "text/plain; charset=klingon"})

    assert Shop(answer=answer)(item="7") == "caf\ufffd"


class Endless(httpx.AsyncByteStream):
    """A body that never ends; ``sent`` pieces were read of it."""

    def __init__(self) -> None:
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1
            yield b"x" * 65_536


def test_an_endless_answer_is_read_to_the_limit() -> None:
    body = Endless()
    text = Shop(answer=lambda _: httpx.Response(200, stream=body, headers={"content-type": "text/plain"}))(item="7")
    assert text.endswith("x\n[cut after 1,000,000 bytes]")
    assert len(text) < 1_000_100
    assert body.sent == 16


def test_a_redirect_is_followed_within_the_host_only() -> None:
    def within(request: httpx.Request) -> httpx.Response:
        there = request.url.path.endswith("/")
        return httpx.Response(200, text="there") if there else httpx.Response(307, headers={"location": f"{request.url.path}/"})

    assert Shop(answer=within)(item="7") == "there"
    for target in ("https://evil.example.com/", "http://eu.shop.example.com/", "https://eu.shop.example.com:8443/", "//evil.example.com/"):
        shop = Shop(answer=lambda _, to=target: httpx.Response(302, headers={"location": to}))  # type: ignore[misc]
        with pytest.raises(RunError, match=r"redirects to .* which is not followed"):
            shop(item="7")
        assert len(shop.requests) == 1
    circle = Shop(answer=lambda request: httpx.Response(302, headers={"location": request.url.path}))
    with pytest.raises(RunError, match="redirects more than 3 times"):
        circle(item="7")


def test_a_private_address_behind_a_public_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def private(host: str, port: int) -> list[str]:
        return ["169.254.169.254"]

    monkeypatch.setattr("tools.network.lookup", private)
    shop = Shop()
    with pytest.raises(InputError, match=r"is at 169\.254\.169\.254"):
        shop(item="7")
    assert shop.requests == []
    assert "not a public address" in asyncio.run(call_tool(shop.tool, {"item": "7"})).error


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/hang":
            self.server.hanging.wait(10)  # type: ignore[attr-defined]
            return
        body = self.server.spec if self.path == "/spec.json" else json.dumps({"path": self.path}).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """A service of one's own, on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    paths = {f"/{name}": {"get": {"operationId": name}} for name in ("hello", "hang")}
    server.spec = json.dumps({"openapi": "3.1.0", "paths": paths}).encode()  # type: ignore[attr-defined]
    server.hanging = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.hanging.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_of_ones_own_is_reached_where_that_is_allowed(service: str) -> None:
    hello, hang = openapi_tools(f"{service}/spec.json", allow_private=True)
    assert asyncio.run(hello.acall({})) == '{"path":"/hello"}'
    hang.timeout = 0.2
    with pytest.raises(RunError, match=r"no answer within 0\.2 seconds"):
        asyncio.run(hang.acall({}))
    for refused in (f"{service}/spec.json", service.replace("http:", "https:")):
        with pytest.raises(InputError):
            openapi_tools(refused)


def test_a_service_that_is_down_is_an_error() -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(RunError, match="ConnectError: refused"):
        Shop(answer=down)(item="7")


# -- descriptions that are wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("get_item", r"no operation 'get_item' \(did you mean get-item\?\); there are: get-item, put_item"),
        ("upload", "its body is multipart/form-data; this tool sends JSON"),
        ("needs_cookie", "needs the cookie parameter 'session'"),
        ("matrix", "style 'matrix'; in a path, simple"),
        ("open_slot", "differ in p"),
    ],
)
def test_an_operation_that_cannot_be_called_is_refused_at_once(operation: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        OpenAPITool(SHOP, operation)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("openapi: 2.9", "not an OpenAPI 3 description"),
        ("swagger: '2.0'", "Swagger 2.0"),
        ("just text", "not an OpenAPI 3 description"),
        ("", "not an OpenAPI 3 description"),
        ("{", "neither JSON nor YAML"),
        ("a: [", "neither JSON nor YAML"),
        ("!!python/object/apply:os.system ['true']", "neither JSON nor YAML"),
        ("[" * 5_000, "nested too deeply|neither JSON nor YAML"),
        ('{"a":' * 50_000, "nested too deeply|neither JSON nor YAML"),
        ("x" * 2_000_001, "at most 2,000,000 of YAML"),
        ("openapi: 3.0.0", "no object 'paths'"),
        ("openapi: 3.0.0\npaths: {/x: {$ref: '#/paths/~1x'}}", "circle"),
        ("openapi: 3.0.0\npaths: {/x: {$ref: 'https://evil.example.com/#/x'}}", "only references within it"),
        ("openapi: 3.0.0\npaths: {/x: {$ref: '../../etc/passwd'}}", "only references within it"),
        ("openapi: 3.0.0\npaths: {/x: {$ref: '#/nowhere'}}", "which is not in it"),
        ("openapi: 3.0.0\npaths: {/x: {get: {operationId: x}}}", "names no server with a host; give base_url"),
        ("openapi: 3.0.0\nservers: [{url: /v1}]\npaths: {/x: {get: {operationId: x}}}", "give base_url"),
        ("openapi: 3.0.0\nservers: [{url: 'http://127.0.0.1'}]\npaths: {/x: {get: {operationId: x}}}", "not a public address"),
        ("openapi: 3.0.0\nservers: [{url: 'file:///etc'}]\npaths: {/x: {get: {operationId: x}}}", "starts with http"),
        ("openapi: 3.0.0\npaths: {/x: {get: {operationId: x}, post: {operationId: x}}}", "two operations 'x'"),
        ("openapi: 3.0.0\npaths: {x: {get: {operationId: x}}}", "does not start with '/'"),
    ],
)
def test_a_bad_description_is_an_input_error(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(InputError, match=reason):
        OpenAPITool(str(tmp_path / "spec.yaml"), "x")


@pytest.mark.parametrize("spec", ["no/such/file.yaml", "a\x00b", b"\xff", 5, None])
def test_a_description_that_cannot_be_read_is_an_input_error(spec: Any) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        OpenAPITool(spec, "x")


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0}, {"timeout": True}, {"api_key_env": "sk-123 4"}, {"base_url": "https://a.com/?key=1"}, {"base_url": "ftp://a"}],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as raised:
        OpenAPITool(SHOP, "get-item", **options)
    assert "sk-123" not in str(raised.value)


def test_a_schema_that_grows_without_end_is_cut() -> None:
    """Each level refers to the next ten times: ten to the power of its depth."""
    levels = {f"L{n}": {"type": "object", "properties": {f"p{i}": {"$ref": f"#/x/L{n + 1}"} for i in range(10)}} for n in range(11)}
    levels["L11"] = {"type": "string"}
    spec = {**document(requestBody={"content": {"application/json": {"schema": {"$ref": "#/x/L0"}}}}), "x": levels}
    assert len(json.dumps(OpenAPITool(spec, "x").schema)) < 100_000


def test_a_schema_in_a_circle_ends_in_anything() -> None:
    spec = read_document(SHOP).schema({"$ref": "#/components/schemas/Item"})
    depth = 0
    while "parts" in spec.get("properties", {}):
        spec, depth = spec["properties"]["parts"].get("items", {}), depth + 1
    assert 2 <= depth <= 12


def test_yaml_that_contains_itself_ends_too(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "openapi: 3.0.0\nservers: [{url: 'https://example.com'}]\npaths: {/x: {post: {operationId: x, requestBody:"
        " {content: {application/json: {schema: &s {type: object, properties: {again: *s}}}}}}}}"
    )
    assert len(json.dumps(OpenAPITool(str(tmp_path / "spec.yaml"), "x").schema)) < 2_000


def test_it_goes_into_a_pipeline_file() -> None:
    tool = OpenAPITool(SHOP, "get-item", "https://shop.example.com", "SHOP_KEY", 3.0, False)
    assert registered("OpenAPITool") is OpenAPITool
    assert configuration(tool) == {
        "spec": SHOP,
        "operation": "get-item",
        "base_url": "https://shop.example.com",
        "api_key_env": "SHOP_KEY",
        "timeout": 3.0,
    }
