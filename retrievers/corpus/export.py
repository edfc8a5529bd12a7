"""A corpus as a JSON Lines file that any tool can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from rag.core.types import Passage
from retrievers.corpus import durable
from retrievers.corpus.manifest import DocumentRecord
from retrievers.corpus.store import Store


def export_jsonl(store: Store, path: Path) -> int:
    """Write a line per document, then a line per passage; the file appears when it is complete. Returns the number of lines."""
    temporary = path.with_name(f"{durable.TEMPORARY}{os.getpid()}-{path.name}")
    lines = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for record in _records(store):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                lines += 1
        durable.flush(temporary)
        durable.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return lines


def _records(store: Store) -> Iterator[dict[str, Any]]:
    for document in store.documents():
        yield {"type": "document", **_as_dict(document)}
    for _, passage in store.each_passage():
        yield {"type": "passage", **_as_dict(passage)}


def _as_dict(value: DocumentRecord | Passage) -> dict[str, Any]:
    values = {field.name: getattr(value, field.name) for field in fields(value)}
    return {**values, "metadata": dict(value.metadata)}
