"""What became of processes, as /proc tells."""

from __future__ import annotations

import time
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def there(pid: int) -> bool:
    """Whether the kernel knows it: a zombie is there."""
    return Path(f"/proc/{pid}").exists()


def ended(pids: list[int], seconds: float = 10.0) -> bool:
    """Whether none of them runs, now or soon."""
    until = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
