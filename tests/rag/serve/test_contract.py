from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from starlette.testclient import TestClient

from rag.core.errors import ConfigError
from rag.serve.contract import ANSWERING, READING, Events, documented, openapi_of
from rag.serve.openai_answers import ABSENT, Error, HealthAnswer, ModelList
from rag.serve.rerank_types import CosineRanker
from rag.serve.routes import completions, embeddings, rerank
from tests.rag.serve.parts import Letters, OneShelf, app_of, pipeline, service, work

COMPLETION = {"model": "graft", "prompt": "How long may a suit be worn outside?"}
RERANK = {"model": "letters", "query": "abc", "documents": ["abc", "x"], "max_tokens_per_doc": 5}


class Thing(BaseModel):
    """A thing."""

    name: str
    size: int = ABSENT


def nothing() -> None:
    """What a route does is not in the document."""


def small() -> FastAPI:
    """One route of every kind that the document knows."""
    router = APIRouter()
    thing = documented("A thing", gives={200: Thing, 404: Error}, parameters=[{"name": "q", "in": "query", "schema": {"type": "string"}}])
    router.get("/things/{name}/{part:int}", openapi_extra=thing)(nothing)
    router.put("/things", openapi_extra=documented("Put it", takes={"multipart/form-data": {"type": "object"}}, gives={204: None}))(nothing)
    router.get("/metrics", openapi_extra=documented("Numbers", gives={200: {"text/plain": str}}))(nothing)
    router.get("/events", openapi_extra=documented("News", gives={200: {"text/event-stream": Events(Thing, Error)}}))(nothing)
    health = documented("Health", gives={200: HealthAnswer, 503: HealthAnswer}, open=True)
    router.get("/healthz", openapi_extra=health)(nothing)
    router.get("/", include_in_schema=False)(nothing)
    return app_of(router)


def protocols(shelf: OneShelf | None = None) -> FastAPI:
    return app_of(
        completions.routes(service({"graft": pipeline(shelf=shelf)})),
        embeddings.routes({"letters": Letters()}, work()),
        rerank.routes({"letters": CosineRanker(Letters())}, work()),
    )


def refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for name, value in part.items() if name == "$ref")
        for value in part.values():
            yield from refs(value)
    elif isinstance(part, list):
        for value in part:
            yield from refs(value)


@pytest.mark.parametrize("app", [small(), protocols()], ids=["small", "protocols"])
def test_the_document_is_whole(app: FastAPI) -> None:
    document = json.loads(json.dumps(openapi_of(app), allow_nan=False))
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"]
    schemas = document["components"]["schemas"]
    for ref in refs(document):
        assert ref.startswith("#/components/schemas/")
        assert ref.removeprefix("#/components/schemas/") in schemas
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert set(schemas) == {"Error", *(ref.rpartition("/")[2] for ref in refs(document))}, "a schema that nobody names"
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert any(status.startswith("2") for status in operation["responses"])
        assert all(response["description"] for response in operation["responses"].values())


def test_every_error_has_the_one_shape_and_only_where_it_can_come() -> None:
    paths = openapi_of(protocols(), in_front=(401, 429))["paths"]
    assert set(paths) == {"/v1/completions", "/v1/embeddings", "/v1/rerank", "/v2/rerank"}
    for methods in paths.values():
        for status, response in methods["post"]["responses"].items():
            if status != "200":
                assert response["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    asked = {str(status) for status in (200, 401, *READING, *ANSWERING)}
    assert set(paths["/v1/completions"]["post"]["responses"]) == asked
    assert "Retry-After" in paths["/v1/completions"]["post"]["responses"]["429"]["headers"]
    assert "WWW-Authenticate" in paths["/v1/completions"]["post"]["responses"]["401"]["headers"]


def test_each_kind_of_route_is_described() -> None:
    document = openapi_of(small())
    paths = document["paths"]
    assert "/" not in paths
    thing = paths["/things/{name}/{part}"]["get"]
    assert [(one["name"], one["in"]) for one in thing["parameters"]] == [("name", "path"), ("part", "path"), ("q", "query")]
    assert [one["schema"] for one in thing["parameters"][:2]] == [{"type": "string"}, {"type": "integer"}]
    assert thing["operationId"] == "get_things_name_part"
    assert set(thing["responses"]) == {"200", "401", "404"}
    put = paths["/things"]["put"]
    assert put["requestBody"] == {"required": True, "content": {"multipart/form-data": {"schema": {"type": "object"}}}}
    assert "content" not in put["responses"]["204"]
    assert set(put["responses"]) == {"204", "400", "401", "408", "413", "415"}
    assert paths["/metrics"]["get"]["responses"]["200"]["content"] == {"text/plain": {"schema": {"type": "string"}}}
    events = paths["/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert events["schema"]["type"] == "string"
    assert list(refs(events)) == ["#/components/schemas/Thing", "#/components/schemas/Error"]
    assert document["components"]["schemas"]["Thing"]["required"] == ["name"]
    health = paths["/healthz"]["get"]
    assert (health["security"], set(health["responses"])) == ([], {"200", "503"})
    assert list(refs(health)) == ["#/components/schemas/HealthAnswer"] * 2


def test_a_key_is_asked_for_only_where_there_is_one() -> None:
    closed, open_ = openapi_of(small()), openapi_of(small(), in_front=())
    (scheme,) = closed["security"][0]
    assert closed["components"]["securitySchemes"][scheme] == {"type": "http", "scheme": "bearer"}
    assert "security" not in open_
    assert "securitySchemes" not in open_["components"]
    assert "401" not in open_["paths"]["/metrics"]["get"]["responses"]


def test_a_route_that_says_nothing_is_found() -> None:
    router = APIRouter()
    router.get("/forgotten")(nothing)
    with pytest.raises(ConfigError, match="/forgotten"):
        openapi_of(app_of(router))


ASKED: list[tuple[str, Any, int]] = [
    ("/v1/completions", COMPLETION, 200),
    ("/v1/completions", {**COMPLETION, "n": 2}, 400),
    ("/v1/completions", {**COMPLETION, "model": "x"}, 404),
    ("/v1/embeddings", {"model": "letters", "input": ["abc", "x"]}, 200),
    ("/v1/embeddings", {"model": "letters", "input": "abc", "encoding_format": "base64"}, 200),
    ("/v1/embeddings", {"model": "letters", "input": [1]}, 400),
    ("/v1/rerank", RERANK, 200),
    ("/v2/rerank", RERANK, 200),
    ("/v2/rerank", {**RERANK, "documents": []}, 400),
]


@pytest.mark.parametrize(("path", "asked", "status"), ASKED)
def test_answers_are_as_documented(path: str, asked: Any, status: int) -> None:
    app = protocols()
    operation, shared = openapi_of(app)["paths"][path]["post"], openapi_of(app)["components"]
    reply = TestClient(app).post(path, json=asked)
    assert reply.status_code == status
    conforms(reply.json(), operation["responses"][str(status)]["content"]["application/json"]["schema"], shared)
    # Nothing is wrong with a request that is answered, and only what a schema cannot say is refused beyond it.
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    valid = Draft202012Validator({**schema, "components": shared}).is_valid(asked)
    assert valid is (status != 400)


def test_a_stream_is_as_documented() -> None:
    app = protocols()
    document = openapi_of(app)
    media = document["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    reply = TestClient(app).post("/v1/completions", json={**COMPLETION, "stream": True, "stream_options": {"include_usage": True}})
    *chunks, done = [line.removeprefix("data: ") for line in reply.text.split("\n") if line.startswith("data: ")]
    assert done == "[DONE]"
    assert len(chunks) > 5
    for chunk in chunks:
        conforms(json.loads(chunk), media["x-event-data"], document["components"])


def test_the_refused_fields_are_refused_by_the_schema_too() -> None:
    shared = openapi_of(protocols())["components"]
    schema = Draft202012Validator({"$ref": "#/components/schemas/CompletionRequest", "components": shared})
    for harmless in ({"n": 1}, {"echo": False}, {"suffix": ""}, {"logit_bias": {}}, {"stop": None}, {"prompt": ["x"]}):
        assert schema.is_valid({**COMPLETION, **harmless})
    for refused in ({"n": 2}, {"echo": True}, {"suffix": "x"}, {"stop": []}, {"logprobs": 0}, {"prompt": ["x", "y"]}, {"x": 1}):
        assert not schema.is_valid({**COMPLETION, **refused})


def conforms(body: Any, schema: dict[str, Any], shared: dict[str, Any]) -> None:
    """Raises if ``body`` is not as ``schema`` says."""
    Draft202012Validator({**schema, "components": shared}).validate(body)


def test_the_check_of_conformity_can_fail() -> None:
    from jsonschema import ValidationError

    with pytest.raises(ValidationError):
        conforms({"object": "list"}, {"$ref": "#/components/schemas/ModelList"}, {"schemas": {"ModelList": ModelList.model_json_schema()}})
