"""An OpenAPI 3 description, read with bounds: it may come from somebody else's server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.core.errors import InputError
from rag.core.sync import run_sync
from tools.openapi.http import fetch
from tools.schema import resolve, written_out

_MAX_JSON = 20_000_000
_MAX_YAML = 2_000_000  # characters; a YAML parser takes a second for 100,000
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")


@dataclass(frozen=True, slots=True)
class Document:
    """A description and, if it was fetched, the URL it came from."""

    root: Mapping[str, Any]
    url: str = ""

    def resolve(self, node: Any) -> Mapping[str, Any]:
        """``node``, or what its ``$ref`` points to; see `tools.schema.resolve`."""
        return resolve(self.root, node)

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
        """(path, method, path item, operation) of each, in the document's order."""
        for path, entry in _object(self.root.get("paths"), "paths").items():
            item = self.resolve(entry)
            for method in _METHODS:
                if isinstance(item.get(method), Mapping):
                    yield str(path), method, item, item[method]

    def schema(self, node: Any) -> dict[str, Any]:
        """``node`` as a JSON schema on its own; see `tools.schema.written_out`."""
        return written_out(self.root, node)


def read_document(spec: str | Path | Mapping[str, Any] | Document, *, timeout: float = 10.0, allow_private: bool = False) -> Document:
    """The description in ``spec``: a path to a JSON or YAML file, an https URL, or the object itself.

    Raises `InputError` if it cannot be read, is too large (20 MB of JSON, 2 MB of YAML) or is no OpenAPI 3; `RunError` if a URL does not
    answer.
    """
    if isinstance(spec, Document):
        return spec
    if isinstance(spec, Mapping):
        return _checked(spec, "", "the OpenAPI description")
    if isinstance(spec, str) and "://" in spec:
        if not spec.startswith("https://") and not allow_private:
            raise InputError("the OpenAPI description: give an https:// URL or the path of a file; plain http is for a server of your own")
        text = run_sync(fetch(spec, limit=_MAX_JSON, timeout=timeout, allow_private=allow_private))
        where = spec.partition("?")[0]
        return _checked(_parsed(text, where), spec, where)
    try:
        text = Path(spec).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise InputError(f"the OpenAPI description {spec!s}: cannot be read as UTF-8 text ({error})") from None
    return _checked(_parsed(text, str(spec)), "", str(spec))


def _parsed(text: str, where: str) -> Any:
    import yaml

    try:
        if text.lstrip()[:1] == "{" and len(text) <= _MAX_JSON:
            return json.loads(text)
        if len(text) > _MAX_YAML:
            raise InputError(f"{where}: {len(text):,} characters; at most {_MAX_YAML:,} of YAML or {_MAX_JSON:,} of JSON are read")
        return yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{where}: neither JSON nor YAML ({' '.join(str(error).split())[:300]})") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None


def _checked(root: Any, url: str, where: str) -> Document:
    version = root.get("openapi") if isinstance(root, Mapping) else None
    if not str(version).startswith("3."):
        found = "Swagger " + str(root["swagger"]) if isinstance(root, Mapping) and "swagger" in root else f"openapi: {version}"
        raise InputError(f"{where}: not an OpenAPI 3 description ({found}); its key 'openapi' must say 3.x")
    return Document(root, url)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"the OpenAPI description has no object '{name}'")
    return value
