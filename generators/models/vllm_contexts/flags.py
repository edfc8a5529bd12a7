"""The options of a vLLM server that shall use stores of contexts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from generators.models.server import Flag
from rag.core.errors import ConfigError, CorpusNotFound
from retrievers.context.manifest import MANIFEST


def context_flags(
    stores: Sequence[str | Path], tenants: Mapping[str, tuple[str, Sequence[str | Path]]] | None = None, ram_bytes: int = 1 << 30
) -> dict[str, Flag]:
    """For `serve_vllm`, `Supervisor` or ``vllm serve``: ``stores`` are everyone's, one for each adapter that has one.

    ``tenants`` have the SHA-256 of their key, in hexadecimal, and their own stores, by name. ``ram_bytes`` is what each store may keep in
    the worker's memory. Raises `ConfigError` without a store, `CorpusNotFound` for a folder that is none.
    """
    owned = [(path, None) for path in stores] + [(path, name) for name, (_, paths) in (tenants or {}).items() for path in paths]
    if not owned:
        raise ConfigError("name a store of contexts, a folder that `rag contexts build` wrote")
    settings = {
        "stores": [_store(Path(path).expanduser().absolute(), name) for path, name in owned],
        "tenants": {name: key for name, (key, _) in (tenants or {}).items()},
        "ram_bytes": ram_bytes,
    }
    transfer = {
        "kv_connector": "ContextConnector",
        "kv_connector_module_path": "generators.models.vllm_contexts.connector",
        "kv_role": "kv_consumer",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": settings,
    }
    return {"kv-transfer-config": json.dumps(transfer)}


def _store(path: Path, tenant: str | None) -> dict[str, str | None]:
    if not (path / MANIFEST).is_file():
        raise CorpusNotFound(f"{path}: there is no store of contexts here; build one with `rag contexts build`")
    return {"path": str(path), "tenant": tenant}
