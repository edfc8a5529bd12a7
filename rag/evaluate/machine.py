"""Where and when a figure was measured: the machine, the versions of what took part, the date. Every published result carries them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rag

CPU_INFO = Path("/proc/cpuinfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Of Linux. A container sees the host's cores and memory; what it may use of them stands here."""

_GIB = 2**30


def machine() -> dict[str, Any]:
    """``{"cpu", "cores", "memory_gib", "system"}``, and "gpu" if torch is already loaded and has one.

    ``cores`` and ``memory_gib`` are what this process may use, which can be less than what the machine has. ``memory_gib`` is None where
    the system does not tell.
    """
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    gpu = _gpu()
    return {**found, "gpu": gpu} if gpu else found


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of graft-rag, Python and those of ``packages`` (names of distributions) that are installed."""
    found = {"graft-rag": rag.__version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def date() -> str:
    """Now, as "2026-01-31T23:59:59Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cpu() -> str:
    try:
        lines = CPU_INFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal() and int(period):
        usable = min(usable, max(1, round(int(quota) / int(period))))
    return usable


def _memory() -> float | None:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not POSIX
        return None
    limit = _limit("memory.max")
    return round(min(size, int(limit) if limit.isdecimal() else size) / _GIB, 1)


def _limit(name: str) -> str:
    try:
        return (CONTROL_GROUP / name).read_text("utf-8").strip()
    except OSError:
        return ""


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # to load it only to ask would take seconds
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())
