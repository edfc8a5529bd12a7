"""Faster places above the disk: a bounded number of bytes in RAM or on a GPU, and who has to leave when they are used up."""

from __future__ import annotations

import heapq
import threading
from dataclasses import dataclass
from itertools import count

import torch

from rag.core.errors import ConfigError, InputError
from retrievers.context.numbers import Packed, size

Key = tuple[str, str]
"""Passage id and the hash of its text."""


@dataclass(slots=True)
class _Kept:
    packed: Packed
    bytes: int
    cost: float
    frequency: int = 1
    ticket: int = 0
    """Tells its newest place in the queue from those it had before."""


class Tier:
    """Passages in memory, up to ``capacity`` bytes on ``device``. Safe for threads.

    Greedy-Dual-Size-Frequency (Cherkasova 1998; as PGDSF in RAGCache, Jin et al. 2024, https://arxiv.org/abs/2404.12457): a passage is
    worth clock + frequency × cost / size, where cost is the seconds that it would take to have it here again. The one worth least leaves,
    and the clock moves up to its worth, so that what nobody asks for any more grows old.
    """

    def __init__(self, name: str, capacity: int, device: str = "cpu") -> None:
        """Raises `InputError` for a negative capacity, `ConfigError` for a device that is not there."""
        if capacity < 0:
            raise InputError(f"a tier of {capacity} bytes: the size is 0 (nothing is kept) or more")
        self.name, self.capacity = name, capacity
        self.device = _device(device)
        self.bytes = self.hits = self.misses = self.evictions = 0
        self._kept: dict[Key, _Kept] = {}
        self._queue: list[tuple[float, int, Key]] = []
        self._tickets = count(1)
        self._clock = 0.0
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
            self._enqueue(key, kept)
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
            self._enqueue(key, kept)
        return moved

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def _enqueue(self, key: Key, kept: _Kept) -> None:
        kept.ticket = next(self._tickets)
        worth = self._clock + kept.frequency * kept.cost / kept.bytes
        heapq.heappush(self._queue, (worth, kept.ticket, key))
        if len(self._queue) > 4 * len(self._kept) + 64:  # old places of passages that were asked for again
            self._queue = [place for place in self._queue if self._current(place)]
            heapq.heapify(self._queue)

    def _evict(self) -> None:
        while True:
            place = heapq.heappop(self._queue)
            if self._current(place):
                break
        self._clock = place[0]
        self.bytes -= self._kept.pop(place[2]).bytes
        self.evictions += 1

    def _current(self, place: tuple[float, int, Key]) -> bool:
        kept = self._kept.get(place[2])
        return kept is not None and kept.ticket == place[1]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is no device: name one as torch does, such as cuda or cuda:1") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"{name!r}: there is no such GPU here; leave the device out to keep contexts in RAM only")
    return device
