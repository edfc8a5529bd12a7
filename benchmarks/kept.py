"""Results of work that takes a while, kept as soon as each is there, so that a stopped benchmark does it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.files import write_whole
from rag.core.errors import InputError


def digest(settings: Any) -> str:
    """A short name for ``settings``, which JSON can hold: others have another."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


class Kept:
    """JSON files in ``folder``, one for each result, named after what it depends on: other options never find an old result."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def value(self, name: str, key: Mapping[str, Any], make: Callable[[], Any], *, anew: bool = False) -> Any:
        """What ``make`` gave for ``key``, JSON-ready, now or before; ``anew``: now.

        Raises `InputError` for a file that is not what was written.
        """
        plain = json.loads(json.dumps(dict(key)))
        file = self._folder / f"{name}-{digest(plain)}.json"
        if file.is_file() and not anew:
            return _read(file, plain)
        found = make()
        write_whole(file, json.dumps({"key": plain, "value": found}, indent=1, ensure_ascii=False) + "\n")
        return found


def _read(file: Path, key: Mapping[str, Any]) -> Any:
    try:
        held = json.loads(file.read_text("utf-8"))
        same, value = held["key"] == key, held["value"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: it is not what this benchmark keeps ({error!r}); delete it, and it is measured again") from error
    if not same:
        raise InputError(f"{file}: it was measured with other options than its name says; delete it, and it is measured again")
    return value
