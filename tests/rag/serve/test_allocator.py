"""In processes of their own: what is set holds for all of a process, and only for heaps that do not exist yet."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has heaps for each thread")

PROGRAM = """
import sys, threading
from rag.serve.allocator import steady_memory
done = steady_memory() if sys.argv[1] == "steady" else None
together, kept = threading.Barrier(8), []

def work():
    together.wait()
    kept.append([bytes(100_000) for _ in range(20)])  # large enough for the C library, too small for a mapping of its own
    together.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
parts = [line.split() for line in open("/proc/self/maps")]
heaps = [part for part in parts if int(part[0].split("-")[0], 16) % (64 << 20) == 0 and part[1] == "rw-p" and len(part) == 5]
print(done, len(heaps))
"""


def heaps(how: str, **environment: str) -> tuple[str, int]:
    """Whether it was done, and how many heaps eight threads had beside the main one."""
    clean = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD")}
    command = [sys.executable, "-c", PROGRAM, how]
    done, number = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout.split()
    return done, int(number)


def test_threads_share_two_heaps() -> None:
    assert heaps("as it is")[1] >= 4
    done, number = heaps("steady")
    assert done == "True"
    assert number <= 1  # and the main one


def test_what_the_operator_chose_stays() -> None:
    done, number = heaps("steady", MALLOC_ARENA_MAX="6")
    assert done == "False"
    assert number >= 4
