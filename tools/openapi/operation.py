"""One operation of an OpenAPI description: what it takes, and the request that it makes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from rag.core.errors import InputError
from tools.openapi.document import Document
from tools.openapi.parameters import Parameter, read_parameters

_MAX_DESCRIPTION = 1_000


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: ``path`` comes after the server's address, ``body`` is JSON or None for none."""

    path: str
    query: list[str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation with its ``schema``: the JSON schema of the object of its arguments. A JSON body is the argument "body"."""

    id: str
    method: str
    path: str
    description: str
    schema: dict[str, Any]
    parameters: list[Parameter]
    takes_body: bool
    server: str
    security: Mapping[str, Any]

    def request(self, arguments: Mapping[str, Any]) -> Request:
        """The request for ``arguments``. Raises `InputError` if one is unknown, missing or cannot be sent."""
        known = self.schema["properties"]
        for name in arguments:
            if name not in known:
                raise InputError(f"{self.id}: there is no argument '{name}'; it takes: {', '.join(known) or 'none'}")
        missing = [name for name in self.schema["required"] if arguments.get(name) is None]
        if missing:
            raise InputError(f"{self.id}: missing {', '.join(missing)}; it takes: {', '.join(known)}")
        given = [(p, arguments[p.argument]) for p in self.parameters if arguments.get(p.argument) is not None]
        headers = {p.name: p.in_header(value) for p, value in given if p.place == "header"}
        query = [pair for p, value in given if p.place == "query" for pair in p.in_query(value)]
        places = {p.name: p.in_path(value) for p, value in given if p.place == "path"}
        path = re.sub(r"\{([^{}]*)\}", lambda slot: places[slot[1]], self.path)
        if any(segment in (".", "..") for segment in path.split("/")):
            raise InputError(f"{self.id}: these arguments make the path {path!r:.200}, which leads out of the operation's own")
        return Request(path, query, headers, arguments.get("body") if self.takes_body else None)


def operation_ids(document: Document) -> dict[str, tuple[str, str]]:
    """(path, method) by operation id; one without gets its method and path as identifier: "get_pets_pet_id". Raises `InputError` for an id
    that stands twice."""
    found: dict[str, tuple[str, str]] = {}
    for path, method, _, operation in document.operations():
        name = str(operation.get("operationId") or re.sub(r"\W+", "_", f"{method}{path}").strip("_"))
        if name in found:
            raise InputError(
                f"the OpenAPI description has two operations '{name}': {' and '.join(map(str, (found[name], (path, method))))}"
            )
        found[name] = (path, method)
    return found


def find_operation(document: Document, id: str) -> Operation:
    """The operation called ``id``. Raises `InputError` that names those there are, or what in it cannot be sent."""
    known = operation_ids(document)
    if id not in known:
        close = difflib.get_close_matches(str(id), known, n=1)
        names = ", ".join(list(known)[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise InputError(f"there is no operation '{id}'{f' (did you mean {close[0]}?)' if close else ''}; there are: {names or 'none'}")
    for path, method, item, raw in document.operations():
        if (path, method) == known[id]:
            return _read(document, id, path, method, item, raw)
    raise AssertionError("unreachable: the id was found above")


def _read(document: Document, id: str, path: str, method: str, item: Mapping[str, Any], raw: Mapping[str, Any]) -> Operation:
    if not path.startswith("/"):
        raise InputError(f"operation '{id}': its path {path!r:.100} does not start with '/'")
    parameters = read_parameters(document, item, raw, f"operation '{id}'")
    open_slots = set(re.findall(r"\{([^{}]*)\}", path)) ^ {p.name for p in parameters if p.place == "path"}
    if open_slots:
        raise InputError(f"operation '{id}': its path {path!r:.200} and its path parameters differ in {', '.join(sorted(open_slots))}")
    properties = {p.argument: p.schema for p in parameters}
    required = [p.argument for p in parameters if p.required]
    body = _body(document, raw, id)
    if body is not None:
        properties["body"] = body[0]
        required += ["body"] if body[1] else []
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    text = ". ".join(str(raw[key]).strip().rstrip(".") for key in ("summary", "description") if raw.get(key))
    description = text[:_MAX_DESCRIPTION] or f"{method.upper()} {path}"
    return Operation(
        id, method.upper(), path, description, schema, parameters, body is not None, _server(document, item, raw), _security(document, raw)
    )


def _body(document: Document, raw: Mapping[str, Any], id: str) -> tuple[dict[str, Any], bool] | None:
    """Schema and whether it must be given; None if there is none, or one that may be left out and is not JSON."""
    if "requestBody" not in raw:
        return None
    body = document.resolve(raw["requestBody"])
    content = body.get("content")
    kinds = content if isinstance(content, Mapping) else {}
    for kind, media in kinds.items():
        bare = str(kind).partition(";")[0].strip().lower()
        if bare in ("application/json", "*/*", "application/*") or bare.endswith("+json"):
            return document.schema(media.get("schema", {}) if isinstance(media, Mapping) else {}), body.get("required") is True
    if body.get("required") is True:
        raise InputError(f"operation '{id}': its body is {', '.join(map(str, kinds)) or 'of no kind'}; this tool sends JSON")
    return None


def _server(document: Document, item: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """The first server named for the operation, its path or the document, or "" if that is a path without a host."""
    for holder in (raw, item, document.root):
        servers = holder.get("servers")
        if isinstance(servers, list) and servers and isinstance(servers[0], Mapping):
            variables = servers[0].get("variables")
            url = str(servers[0].get("url", ""))
            for name, variable in variables.items() if isinstance(variables, Mapping) else ():
                url = url.replace("{" + str(name) + "}", str(variable.get("default", "")) if isinstance(variable, Mapping) else "")
            return urljoin(document.url, url) if document.url or "://" in url else ""
    return urljoin(document.url, "/") if document.url else ""


def _security(document: Document, raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scheme that the operation names first, or {} for none."""
    wanted = raw.get("security", document.root.get("security"))
    components = document.root.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, Mapping) else None
    for requirement in wanted if isinstance(wanted, list) else ():
        for name in requirement if isinstance(requirement, Mapping) else ():
            if isinstance(schemes, Mapping) and name in schemes:
                return document.resolve(schemes[name])
    return {}
