"""The OpenAPI 3.1 document of the server. Each route says what it takes and gives when it is registered (`documented`); `openapi_of` writes
that down, with one schema for every type that some route named. Nothing of it acts at run time: bodies are parsed by the routes.

Source: the OpenAPI Specification 3.1, https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from starlette.convertors import IntegerConvertor

from rag.core.errors import ConfigError
from rag.serve.openai_answers import Error

if TYPE_CHECKING:
    from fastapi import FastAPI

READING = (400, 408, 413, 415)
"""What a route that reads a body may answer before it does anything."""
ANSWERING = (404, 429, 500, 503, 504)
"""What a route that asks a pipeline may answer, besides."""
LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "An EventSource sends it when it connects again after a stream has ended. The answer is then 204, which makes it stop.",
    "schema": {"type": "string"},
}

_KEY = "graft-operation"
_JSON = "application/json"
_REF = "#/components/schemas/{model}"
_MODE: JsonSchemaMode = "validation"
_HEADERS = {
    401: {"WWW-Authenticate": {"description": "The scheme.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds, where they are known.", "schema": {"type": "integer"}}},
}


class Events:
    """Server-sent events; the data of each is one of ``kinds`` as JSON, and of the last ``[DONE]``."""

    def __init__(self, *kinds: type) -> None:
        self.kinds = kinds


Body = Any
"""A type, which is sent as JSON; or for each media type a type, `Events`, or a JSON schema as it stands; None: nothing is sent."""


@dataclass(frozen=True)
class _Operation:
    summary: str
    takes: Mapping[str, Any]
    gives: Mapping[int, Mapping[str, Any]]
    errors: frozenset[int]
    parameters: Sequence[Mapping[str, Any]]
    open: bool

    def types(self) -> Iterator[Any]:
        """Every type that it names."""
        for content in (self.takes, *self.gives.values()):
            for shape in content.values():
                if isinstance(shape, Events):
                    yield from shape.kinds
                elif not isinstance(shape, Mapping):
                    yield shape


def documented(
    summary: str,
    *,
    takes: Body = None,
    gives: Mapping[int, Body],
    errors: Collection[int] = (),
    parameters: Sequence[Mapping[str, Any]] = (),
    open: bool = False,
) -> dict[str, Any]:
    """A route's part of the document, for ``openapi_extra``.

    ``takes``: the body; what reading one can end in (`READING`) is added to ``errors``. ``gives``: the body of each status that is not an
    error in the common shape. ``parameters``: of the query, as OpenAPI writes them; those of the path are found. ``open``: needs no key.
    """
    reading = () if takes is None else READING
    answers = {status: _content(body) for status, body in gives.items()}
    return {_KEY: _Operation(summary, _content(takes), answers, frozenset((*errors, *reading)), tuple(parameters), open)}


def openapi_of(app: FastAPI, *, in_front: Collection[int] = (401,)) -> dict[str, Any]:
    """The document of all routes of ``app`` but those registered with ``include_in_schema=False``.

    ``in_front``: the errors with which a layer before the routes may answer, on all but open routes; with 401 among them a key is asked
    for. Raises `ConfigError` that names a route without `documented`.
    """
    from rag import __version__

    operations = [(route, _operation(route)) for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    schemas = _Schemas([Error, *(kind for _, operation in operations for kind in operation.types())])
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in operations:
        for method in sorted(route.methods):
            described = _describe(route, method.lower(), operation, schemas, frozenset(() if operation.open else in_front))
            paths.setdefault(route.path_format, {})[method.lower()] = described
    components: dict[str, Any] = {"schemas": schemas.components}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "graft", "version": __version__, "description": "Pipelines behind the protocols that clients already speak."},
        "paths": paths,
        "components": components,
    }
    if 401 in in_front:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


class _WithoutTitles(GenerateJsonSchema):
    """A title for each field would repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Schemas:
    """The schemas of all types that are named, each written once."""

    def __init__(self, kinds: Sequence[Any]) -> None:
        inputs: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = [(kind, _MODE, TypeAdapter(kind)) for kind in dict.fromkeys(kinds)]
        schemas, shared = TypeAdapter.json_schemas(inputs, ref_template=_REF, schema_generator=_WithoutTitles)
        self._schemas = schemas
        self.components: dict[str, Any] = shared.get("$defs", {})

    def of(self, shape: Any) -> dict[str, Any]:
        """The media type object of a type, of `Events`, or of a schema as it stands."""
        if isinstance(shape, Events):  # OpenAPI 3.1 has no word for the items of a stream
            pieces = [self._schemas[kind, _MODE] for kind in shape.kinds]
            text = "Server-sent events. The data of each is JSON as x-event-data says; that of the last is [DONE]."
            return {"schema": {"type": "string", "description": text}, "x-event-data": {"anyOf": pieces}}
        return {"schema": dict(shape) if isinstance(shape, Mapping) else self._schemas[shape, _MODE]}

    def content(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The same for each media type."""
        return {media: self.of(shape) for media, shape in content.items()}


def _operation(route: APIRoute) -> _Operation:
    operation = (route.openapi_extra or {}).get(_KEY)
    if not isinstance(operation, _Operation):
        raise ConfigError(
            f"the route {route.path} does not say what it takes and gives; register it with openapi_extra=documented(…), or with"
            " include_in_schema=False"
        )
    return operation


def _describe(route: APIRoute, method: str, operation: _Operation, schemas: _Schemas, in_front: frozenset[int]) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if isinstance(kind, IntegerConvertor) else "string"}}
        for name, kind in route.param_convertors.items()
    ]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{method}_{re.sub('[^a-z0-9]+', '_', route.path_format.lower()).strip('_')}",
        "responses": _responses(operation, schemas, in_front),
    }
    if in_path or operation.parameters:
        described["parameters"] = [*in_path, *(dict(parameter) for parameter in operation.parameters)]
    if operation.takes:
        described["requestBody"] = {"required": True, "content": schemas.content(operation.takes)}
    if operation.open:
        described["security"] = []
    return described


def _responses(operation: _Operation, schemas: _Schemas, in_front: frozenset[int]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in sorted({*operation.gives, *operation.errors, *in_front}):
        content = operation.gives.get(status, {_JSON: Error})
        described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if content:
            described["content"] = schemas.content(content)
        if status in _HEADERS and status not in operation.gives:
            described["headers"] = _HEADERS[status]
        responses[str(status)] = described
    return responses


def _content(body: Body) -> Mapping[str, Any]:
    if body is None:
        return {}
    return body if isinstance(body, Mapping) else {_JSON: body}
