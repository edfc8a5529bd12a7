"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from rag.core.errors import InputError


def write_whole(file: Path, text: str) -> None:
    """Write ``text`` beside ``file``, then put it in its place: a reader finds the old or the new one, never half. Raises `InputError`."""
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, "utf-8")
        os.replace(new, file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from error
    finally:
        new.unlink(missing_ok=True)
