"""How the C library keeps memory: a server of many threads that works for weeks needs less of it for the same work."""

from __future__ import annotations

import ctypes
import os

_ARENA_MAX = -8  # mallopt(3)
_HEAPS = 2


def steady_memory() -> bool:
    """Let all threads share two heaps. True if that was done.

    glibc keeps a heap for each thread, up to eight for each core, and each grows to the largest piece of work its thread ever did.
    Call it before threads start. Other C libraries have nothing of the kind, and what the operator has chosen by ``MALLOC_ARENA_MAX`` or
    ``GLIBC_TUNABLES``, or by another allocator in ``LD_PRELOAD``, stays.
    """
    if any(os.environ.get(name) for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD")):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    return bool(mallopt(_ARENA_MAX, _HEAPS))
