"""Faster places above the disk: a bounded number of bytes in RAM or on a GPU, and who has to leave when they are used up."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

import torch

from rag.core.errors import ConfigError, InputError
from retrievers.context.numbers import Packed, size

Key = tuple[str, str]
"""Passage id and the hash of its text."""

K = TypeVar("K", bound=Hashable)


class GreedyDual(Generic[K]):
    """Who leaves when room is short. Not safe for threads: the one that keeps them asks under its lock.

    Greedy-Dual-Size-Frequency (Cherkasova 1998; as PGDSF in RAGCache, Jin et al. 2024, https://arxiv.org/abs/2404.12457): what is used is
    worth clock + frequency × cost / size from then on, where cost is the seconds that it would take to have it here again. The one worth
    least leaves, and the clock moves up to its worth, so that what nobody asks for any more grows old.
    """

    def __init__(self) -> None:
        self._clock = 0.0
        self._heap: list[tuple[float, int, K]] = []
        self._places: dict[K, int] = {}  # the newest of each: it may have had others before
        self._numbers = count(1)

    def worth(self, frequency: int, cost: float, size: int) -> float:
        """What is used now, ``frequency`` times so far. ``cost`` in seconds, ``size`` in bytes."""
        return self._clock + frequency * cost / max(size, 1)

    def place(self, key: K, worth: float) -> None:
        """Queue ``key``, or move it."""
        place = self._places[key] = next(self._numbers)
        heapq.heappush(self._heap, (worth, place, key))
        if len(self._heap) > 4 * len(self._places) + 64:
            self._heap = [one for one in self._heap if self._current(one)]
            heapq.heapify(self._heap)

    def hold(self, key: K) -> None:
        """Take ``key`` out of the queue, if it is there: it does not leave until it is placed again."""
        self._places.pop(key, None)

    def leave(self) -> K:
        """The one worth least, which is out of the queue now. Raises `IndexError` if nobody is queued."""
        while True:
            one = worth, _, key = heapq.heappop(self._heap)
            if self._current(one):
                del self._places[key]
                self._clock = max(self._clock, worth)  # who was held may come back with what it was worth long ago
                return key

    def _current(self, one: tuple[float, int, K]) -> bool:
        return self._places.get(one[2]) == one[1]


@dataclass(slots=True)
class _Kept:
    packed: Packed
    bytes: int
    cost: float
    frequency: int = 1


class Tier:
    """Passages in memory, up to ``capacity`` bytes on ``device``; who leaves is `GreedyDual`'s. Safe for threads."""

    def __init__(self, name: str, capacity: int, device: str = "cpu") -> None:
        """Raises `InputError` for a negative capacity, `ConfigError` for a device that is not there."""
        if capacity < 0:
            raise InputError(f"a tier of {capacity} bytes: the size is 0 (nothing is kept) or more")
        self.name, self.capacity = name, capacity
        self.device = _device(device)
        self.bytes = self.hits = self.misses = self.evictions = 0
        self._kept: dict[Key, _Kept] = {}
        self._queue: GreedyDual[Key] = GreedyDual()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Packed | None:
        """The passage, which is now worth more; None if it is not here."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                self.misses += 1
                return None
            self.hits += 1
            kept.frequency += 1
            self._used(key, kept)
            return kept.packed

    def put(self, key: Key, packed: Packed, cost: float) -> Packed:
        """Keep a passage that took ``cost`` seconds to get, if it fits at all; return it as it is on this device."""
        moved = {name: tensor.to(self.device) for name, tensor in packed.items()}
        bytes = size(moved)
        if bytes > self.capacity:
            return moved
        with self._lock:
            if key in self._kept:  # another thread was first
                return self._kept[key].packed
            while self.bytes + bytes > self.capacity:
                self._evict()
            kept = self._kept[key] = _Kept(moved, bytes, max(cost, 0.0))
            self.bytes += bytes
            self._used(key, kept)
        return moved

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def _used(self, key: Key, kept: _Kept) -> None:
        self._queue.place(key, self._queue.worth(kept.frequency, kept.cost, kept.bytes))

    def _evict(self) -> None:
        self.bytes -= self._kept.pop(self._queue.leave()).bytes
        self.evictions += 1


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is no device: name one as torch does, such as cuda or cuda:1") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"{name!r}: there is no such GPU here; leave the device out to keep contexts in RAM only")
    return device
