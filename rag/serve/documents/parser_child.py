"""What runs in the parsing process: one file in, JSON lines out.

It takes a request as a line of JSON on standard input, binds itself by the limits in it, and writes the documents to standard output. How
it ended is its exit status; a file that cannot be read is explained in the last line of standard error. It imports little, so that it
starts fast and fits its memory.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag.core.types import Document

DONE = 0
"""Every document was written."""
UNREADABLE = 10
"""The file cannot be read; standard error ends with the line ``{"reason": …}``."""
TOO_LONG = 11
"""The documents do not fit the size that is allowed for the output."""
DISK_FULL = 12
"""The documents do not fit the disk."""

_MAX_REASON = 500
_ENDINGS = {errno.EFBIG: TOO_LONG, errno.ENOSPC: DISK_FULL, errno.EDQUOT: DISK_FULL}


def main() -> int:
    """Read the request, parse, and return the exit status."""
    request = json.loads(sys.stdin.buffer.readline())
    _bind(request)
    from rag.core.errors import ReadError
    from retrievers.readers import read

    path, id = Path(request["path"]), str(request["id"])
    try:
        out = open(1, "wb", closefd=False)  # noqa: SIM115
        for document in read(path):
            out.write(json.dumps(_renamed(document, path, id), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        out.flush()
        return DONE
    except ReadError as error:
        return _explain(str(error).removeprefix(f"{path}: ").replace(str(path), id))
    except (MemoryError, RecursionError) as error:
        return _explain(f"is nested too deeply or needs more memory than a file may take ({type(error).__name__})")
    except OSError as error:
        if error.errno in _ENDINGS:
            return _ENDINGS[error.errno]
        raise


def _explain(reason: str) -> int:
    print("\n" + json.dumps({"reason": reason[:_MAX_REASON]}), file=sys.stderr, flush=True)
    return UNREADABLE


def _bind(request: dict[str, Any]) -> None:
    """Give away all that a file is not worth. There is no way back: the hard limits are set too."""
    for kind, most in (
        (resource.RLIMIT_AS, request["memory"]),
        (resource.RLIMIT_CPU, request["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, request["output"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        spare = 1 if kind == resource.RLIMIT_CPU else 0  # at the soft limit a signal that says why, at the hard one SIGKILL
        resource.setrlimit(kind, (most, most + spare))
    signal.alarm(request["seconds"] + 1)  # for a server that is gone and cannot stop this process any more


def _renamed(document: Document, path: Path, id: str) -> dict[str, Any]:
    """The document under the name that the file was sent with; on disk it has another."""
    title = PurePosixPath(id).stem if document.title == path.stem else document.title
    return {
        "id": id + document.id.removeprefix(path.name),
        "text": document.text,
        "title": title,
        "source": id,
        "format": document.format,
        "metadata": dict(document.metadata),
    }


if __name__ == "__main__":
    os._exit(main())  # what could not be written is not tried again
