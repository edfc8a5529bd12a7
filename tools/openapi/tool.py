"""An operation of a web service as a tool."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rag.core.errors import ConfigError, InputError
from rag.core.registry import component
from tools.network import check_address
from tools.openapi.document import Document, read_document
from tools.openapi.http import send
from tools.openapi.operation import Request, find_operation, operation_ids

if TYPE_CHECKING:
    import httpx

_MAX_BYTES = 1_000_000
"""Bytes of an answer that are read; `call_tool` cuts the text that a model sees much shorter."""

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@component
class OpenAPITool:
    """Calls one operation of a service that an OpenAPI 3 description tells about.

    ``spec`` is the path of a JSON or YAML file, an https URL or the description itself; it is read here, so that an operation that is not
    there is refused when the graph is built. ``operation`` is an operationId. ``base_url`` replaces the description's server.
    ``api_key_env`` names the environment variable with the key, which goes where the operation's security scheme says (a header, the
    query, HTTP basic as "user:password"), else as a bearer token; it is never shown. ``timeout`` in seconds bounds a call.
    ``allow_private`` lets it reach addresses that are not public: a service of your own.

    Arguments are the parameters' names; a JSON body is the argument "body". Raises `InputError` for anything wrong with these.
    """

    def __init__(
        self,
        spec: str | Path | Mapping[str, Any] | Document,
        operation: str,
        base_url: str | None = None,
        api_key_env: str | None = None,
        timeout: float = 10.0,
        allow_private: bool = False,
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise InputError(f"OpenAPITool: timeout is a number of seconds above 0, not {timeout!r}")
        if api_key_env is not None and not _ENVIRONMENT_NAME.fullmatch(api_key_env):
            raise InputError("OpenAPITool: api_key_env is the name of the environment variable that holds the key, never the key itself")
        self.spec = spec
        self.operation = operation
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.timeout = timeout
        self.allow_private = allow_private
        document = read_document(spec, timeout=timeout, allow_private=allow_private)
        self._operation = find_operation(document, operation)
        self._server = self._checked_server(document)
        self.name = re.sub(r"\W", "_", operation) if operation[:1].isalpha() else "_" + re.sub(r"\W", "_", operation)
        self.description = self._operation.description
        self.schema: Mapping[str, Any] = self._operation.schema
        self.transport: httpx.AsyncBaseTransport | None = None  # None: the network

    def __repr__(self) -> str:
        return f"OpenAPITool({self._operation.method} {self._server}{self._operation.path})"

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """The service's answer: JSON in its shortest form, any other text as it is, "(no content)" for none; cut after 1 MB, which it says.

        Raises `InputError` if the arguments do not fit or the address is not public, `RunError` if the service refuses, fails, takes too
        long or answers what is not text, `ConfigError` if the key is not set.
        """
        request = self._operation.request(arguments)
        key = self._key()
        query, headers = self._with_key(request, key)
        text, whole = await send(
            self._operation.method,
            f"{self._server}{request.path}{'?' if query else ''}{'&'.join(query)}",
            headers=headers,
            json=request.body,
            secret=key,
            limit=_MAX_BYTES,
            timeout=self.timeout,
            allow_private=self.allow_private,
            transport=self.transport,
        )
        if key:
            text = text.replace(key, "***")  # a service that echoes its request would hand the key to the model
        return _compact(text) if whole else f"{text}\n[cut after {_MAX_BYTES:,} bytes]"

    def _checked_server(self, document: Document) -> str:
        server = self.base_url or self._operation.server
        if not server:
            raise InputError(f"OpenAPITool '{self.operation}': the description names no server with a host; give base_url")
        url = check_address(server, allow_private=self.allow_private)
        if url.query or url.fragment:
            raise InputError(f"OpenAPITool '{self.operation}': the server's address has a query or fragment; give base_url without")
        if self.api_key_env and self.base_url is None and document.url:
            source = check_address(document.url, allow_private=self.allow_private)
            if (source.scheme, source.netloc) != (url.scheme, url.netloc):
                raise InputError(
                    f"OpenAPITool '{self.operation}': the description from {source.host} would send your key to {url.host};"
                    " if that is right, say so with base_url"
                )
        return str(url).rstrip("/")

    def _key(self) -> str:
        if self.api_key_env is None:
            return ""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(f"the environment variable {self.api_key_env}, which should hold the key for {self._server}, is not set")
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"the key in the environment variable {self.api_key_env} holds characters that no HTTP header can carry")
        return key

    def _with_key(self, request: Request, key: str) -> tuple[list[str], dict[str, str]]:
        scheme = self._operation.security
        name, place = str(scheme.get("name", "")), scheme.get("in")
        if not key:
            return request.query, request.headers
        if scheme.get("type") == "apiKey" and name and place == "query":
            return [*request.query, f"{quote(name, safe='')}={quote(key, safe='')}"], request.headers
        if scheme.get("type") == "apiKey" and name and place in ("header", "cookie"):
            return request.query, {**request.headers, **({name: key} if place == "header" else {"Cookie": f"{name}={key}"})}
        if str(scheme.get("scheme", "")).lower() == "basic":
            return request.query, {**request.headers, "Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"}
        return request.query, {**request.headers, "Authorization": f"Bearer {key}"}


def openapi_tools(
    spec: str | Path | Mapping[str, Any],
    *,
    only: Collection[str] | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    timeout: float = 10.0,
    allow_private: bool = False,
) -> list[OpenAPITool]:
    """A tool for every operation of ``spec``, or for those named in ``only``; see `OpenAPITool`.

    Operations that change something are tools too: name in ``only`` what a model may do.
    """
    document = read_document(spec, timeout=timeout, allow_private=allow_private)
    return [
        OpenAPITool(document, operation, base_url, api_key_env, timeout, allow_private)
        for operation in (operation_ids(document) if only is None else only)
    ]


def _compact(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text if text.strip() else "(no content)"
