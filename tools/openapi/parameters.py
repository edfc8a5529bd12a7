"""Where each argument of an operation goes in the request, and how it is written there (OpenAPI 3, "Parameter Object": style, explode)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rag.core.errors import InputError
from tools.openapi.document import Document

_STYLES = {"path": {"simple"}, "query": {"form", "spaceDelimited", "pipeDelimited", "deepObject"}, "header": {"simple"}}
_SEPARATORS = {"spaceDelimited": " ", "pipeDelimited": "|"}
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# The first three are none by the standard; the others would change which request is sent, or in whose name.
_NO_PARAMETERS = {"accept", "content-type", "authorization", "host", "content-length", "transfer-encoding", "connection", "upgrade", "te"}
_NO_PARAMETERS |= {"trailer", "cookie", "expect", "proxy-authorization", "forwarded", "x-forwarded-for", "x-forwarded-host"}
_NO_PARAMETERS |= {"x-http-method-override", "accept-encoding"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument. ``argument`` is what the caller names it, ``name`` what the request does; ``place`` is "path", "query" or "header"."""

    argument: str
    name: str
    place: str
    required: bool
    schema: dict[str, Any]
    style: str
    explode: bool
    as_json: bool

    def in_path(self, value: Any) -> str:
        """``value`` as part of a path: nothing in it can end the segment."""
        text = self._joined(value)
        if text in ("", ".", ".."):
            raise InputError(f"'{self.argument}' must not be {text!r}: in a path that names something else")
        return quote(text, safe="")

    def in_header(self, value: Any) -> str:
        """``value`` as a header's value."""
        text = self._joined(value)
        if not _HEADER_VALUE.fullmatch(text):
            raise InputError(f"'{self.argument}' goes into the header {self.name}, which holds printable ASCII characters only")
        return text

    def in_query(self, value: Any) -> list[str]:
        """``value`` as ``name=value`` pairs, each encoded."""
        if self.as_json:
            return [_pair(self.name, _text(value))]
        if isinstance(value, Mapping):
            if self.style == "deepObject":
                return [_pair(f"{self.name}[{key}]", _text(part)) for key, part in value.items()]
            if self.explode:
                return [_pair(str(key), _text(part)) for key, part in value.items()]
        if isinstance(value, (list, tuple)) and self.explode:
            return [_pair(self.name, _text(part)) for part in value]
        return [_pair(self.name, self._joined(value))]

    def _joined(self, value: Any) -> str:
        if self.as_json:
            return _text(value)
        if isinstance(value, Mapping):
            return ",".join(f"{key}={_text(part)}" if self.explode else f"{key},{_text(part)}" for key, part in value.items())
        if isinstance(value, (list, tuple)):
            return _SEPARATORS.get(self.style, ",").join(_text(part) for part in value)
        return _text(value)


def read_parameters(document: Document, item: Mapping[str, Any], operation: Mapping[str, Any], where: str) -> list[Parameter]:
    """The parameters of ``operation``, those of its path included. Raises `InputError` if it needs one that cannot be sent."""
    raw: dict[tuple[str, str], Mapping[str, Any]] = {}
    for entry in [*_listed(item), *_listed(operation)]:  # the operation's own replace those of the path
        found = document.resolve(entry)
        raw[str(found.get("in")), str(found.get("name"))] = found
    offered = {key: entry for key, entry in raw.items() if _offered(*key, entry, where)}
    names = [name for _, name in offered]
    taken = {"body"}  # the request's body has this name
    parameters = []
    for (place, name), entry in offered.items():
        argument = name if names.count(name) == 1 and name not in taken else f"{place}_{name}"
        parameters.append(_parameter(document, argument, name, place, entry, where))
    return parameters


def _offered(place: str, name: str, entry: Mapping[str, Any], where: str) -> bool:
    """Whether the caller gives it; what is neither needed nor understood is left out."""
    hidden = place == "header" and name.lower() in _NO_PARAMETERS
    if place in _STYLES and not hidden:
        if place == "header" and not _HEADER_NAME.fullmatch(name):
            raise InputError(f"{where}: {name!r:.100} is no name of a header")
        return True
    if entry.get("required") is True and not (hidden and name.lower() in ("accept", "content-type", "authorization")):
        raise InputError(f"{where}: it needs the {place} parameter {name!r:.100}, which this tool does not send")
    return False


def _parameter(document: Document, argument: str, name: str, place: str, entry: Mapping[str, Any], where: str) -> Parameter:
    content = entry.get("content")
    as_json = isinstance(content, Mapping) and bool(content)
    described = next(iter(content.values())).get("schema", {}) if isinstance(content, Mapping) and content else entry.get("schema", {})
    style = str(entry.get("style") or ("form" if place == "query" else "simple"))
    if style not in _STYLES[place]:
        raise InputError(
            f"{where}: parameter '{name}' has the style {style!r:.50}; in a {place}, {', '.join(sorted(_STYLES[place]))} are known"
        )
    schema = document.schema(described)
    if isinstance(entry.get("description"), str):
        schema["description"] = entry["description"]
    explode = entry.get("explode", style == "form") is True
    return Parameter(argument, name, place, place == "path" or entry.get("required") is True, schema, style, explode, as_json)


def _listed(holder: Mapping[str, Any]) -> list[Any]:
    parameters = holder.get("parameters")
    return parameters if isinstance(parameters, list) else []


def _pair(name: str, value: str) -> str:
    return f"{quote(name, safe='[]')}={quote(value, safe='')}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
