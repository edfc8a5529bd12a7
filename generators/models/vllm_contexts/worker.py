"""The worker's side: stored keys turned to where they stand, and written into the engine's cache by the engine's own code."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from generators.models.vllm_contexts.scheduler import Load
from generators.models.vllm_contexts.shelves import Shelves
from rag.core.errors import CorpusDamaged
from retrievers.context.encoded import Encoded
from retrievers.context.store import Miss

_log = logging.getLogger("graft.contexts")
_AT_ONCE = 1 << 19
"""Numbers of keys that are turned at once: what that takes in between stays in the processor's cache. 2²³ took twice the time."""


class WorkerSide:
    """``page`` is the cache's block size in tokens, ``dtype`` what it holds. Nothing is raised: what fails is in `failures`."""

    def __init__(self, shelves: Shelves, page: int, dtype: torch.dtype) -> None:
        self._shelves, self._page, self._dtype = shelves, page, dtype
        self._failed: dict[str, frozenset[int]] = {}
        self.tokens = 0
        """Written since `counts` was asked."""

    def load(self, loads: Sequence[Load], layers: Sequence[Any]) -> None:
        """Write into ``layers``, the engine's attention layers from the first to the last."""
        for one in loads:
            try:
                self._write(one, layers)
                self.tokens += one.end - one.start
            except Exception as error:
                _log.warning("request %s is read in full: %s: %s", one.request, type(error).__name__, error)
                self._failed[one.request] = self._pages(one)
        if self._failed:  # who counts on pages of another's load in this very step has nothing to stand behind
            lost = {page for pages in self._failed.values() for page in pages}
            self._failed |= {one.request: self._pages(one) for one in loads if not lost.isdisjoint(one.pages)}

    def failures(self) -> dict[str, frozenset[int]]:
        """Requests whose blocks could not be written, with their pages; asked once a step."""
        failed, self._failed = self._failed, {}
        return failed

    def counts(self) -> int:
        """Tokens written since the last time."""
        tokens, self.tokens = self.tokens, 0
        return tokens

    def _pages(self, load: Load) -> frozenset[int]:
        """Those that it was to write."""
        return frozenset(load.pages[load.start // self._page : -(-load.end // self._page)])

    def _write(self, load: Load, layers: Sequence[Any]) -> None:
        wanted = [placed for placed in load.blocks if placed.block.end > load.start]
        found = [self._found(placed.path, placed.block.spelling) for placed in wanted]
        skipped = load.start - wanted[0].block.start  # the engine has the beginning of this one already
        positions = torch.arange(load.start, load.end)
        pages = torch.tensor(load.pages, dtype=torch.int64)
        slots = pages[positions // self._page] * self._page + positions % self._page
        rotary = self._shelves.at(wanted[0].path).rotary  # of one model all
        turn = rotary.turn(positions, found[0].keys.dtype)
        for first, keys, values in _grouped(found, skipped, len(layers)):
            turned = turn(keys).to(self._dtype)
            for number, (key, value) in enumerate(zip(turned, values.to(self._dtype), strict=True), start=first):
                layer = layers[number]
                cache = layer.kv_cache
                place = cache.device
                layer.impl.do_kv_cache_update(
                    layer, key.transpose(0, 1).contiguous().to(place), value.transpose(0, 1).contiguous().to(place), cache, slots.to(place)
                )

    def _found(self, path: str, spelling: str) -> Encoded:
        found = self._shelves.at(path).get(spelling)
        if isinstance(found, Miss):
            raise CorpusDamaged(found.detail or f"a block is {found.reason}")
        return found


def _grouped(found: Sequence[Encoded], skipped: int, layers: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Number of the first layer, keys and values [layers, heads, tokens, head_dim] of some layers at a time."""
    held, heads, _, dim = found[0].keys.shape
    if held != layers:
        raise CorpusDamaged(f"a block has {held} layers, and the engine {layers}")
    tokens = sum(len(one.tokens) for one in found)
    step = max(1, _AT_ONCE // (heads * tokens * dim))
    for first in range(0, layers, step):
        some = slice(first, first + step)
        yield (
            first,
            torch.cat([one.keys[some] for one in found], dim=2)[:, :, skipped:],
            torch.cat([one.values[some] for one in found], dim=2)[:, :, skipped:],
        )
