"""The knowledge tree of RAGCache (Jin et al. 2024, https://arxiv.org/abs/2404.12457): what a model made of the beginnings of prompts, so
that a prompt that begins alike is read from where it differs. Nothing is approximated: each block stands where it stood, behind the very
blocks that it was read behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from rag.core.errors import InputError
from retrievers.context.tiers import GreedyDual

Block = tuple[int, ...]
"""Token ids: a block is looked up by them alone, never by a name, so it is never another text's."""


@dataclass(frozen=True, slots=True)
class Part:
    """``keys``, turned to where they stand, and ``values`` of one block behind those before it: [layers, heads, tokens, head_dim]."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def bytes(self) -> int:
        """Of both."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(slots=True, eq=False)
class _Node:
    """A block behind those of its ancestors. The root has no block, and nothing ``above``."""

    block: Block
    part: Part
    above: _Node | None
    cost: float = 0.0
    frequency: int = 0
    worth: float = 0.0
    below: dict[Block, _Node] = field(default_factory=dict)


class KnowledgeTree:
    """Prompts as sequences of blocks, up to ``capacity`` bytes of keys and values. Safe for threads.

    A path from the root is the beginning of a prompt. When room is short leaves alone may go, by `GreedyDual`: what is kept can always be
    reached. Raises `InputError` for a negative capacity.
    """

    def __init__(self, capacity: int = 1 << 30) -> None:
        if capacity < 0:
            raise InputError(f"a tree of {capacity} bytes: the size is 0 (nothing is kept) or more")
        self.capacity = capacity
        self.bytes = self.hits = self.misses = self.evictions = self.tokens_reused = 0
        """``hits`` and ``misses`` count blocks that were asked for."""
        self._root = _Node((), Part(torch.empty(0), torch.empty(0)), None)
        self._leaves: GreedyDual[_Node] = GreedyDual()
        self._lock = threading.Lock()

    def longest(self, blocks: Sequence[Block]) -> list[Part]:
        """What is kept of the first of ``blocks``, as many as there are without a gap; they are worth more from now on."""
        with self._lock:
            path = self._path(blocks)
            for node in path:
                self._use(node)
            self.hits += len(path)
            self.misses += len(blocks) - len(path)
            self.tokens_reused += sum(len(node.block) for node in path)
            return [node.part for node in path]

    def keep(self, blocks: Sequence[Block], parts: Sequence[Part], costs: Sequence[float]) -> None:
        """Keep ``parts``, those of the last of ``blocks``, which took ``costs`` seconds each, as many from the first on as fit.

        Blocks that another thread has brought meanwhile stay as they are. If what stands before them has left meanwhile, nothing is kept.
        """
        first = len(blocks) - len(parts)
        with self._lock:
            path = self._path(blocks)
            if len(path) < first:
                return
            room = self.capacity - sum(node.part.bytes for node in path)
            node = path[-1] if path else self._root
            for place in range(len(path), len(blocks)):
                part = parts[place - first]
                room -= part.bytes
                if room < 0:  # nothing behind it could be reached
                    return
                self._leaves.hold(node)  # no leaf any more: it does not make room for what stands behind it
                new = node.below[blocks[place]] = _Node(blocks[place], part, node, max(costs[place - first], 0.0))
                self.bytes += part.bytes
                while self.bytes > self.capacity:
                    self._evict()
                self._use(new)
                node = new

    def _path(self, blocks: Sequence[Block]) -> list[_Node]:
        path: list[_Node] = []
        for block in blocks:
            found = (path[-1] if path else self._root).below.get(block)
            if found is None:
                break
            path.append(found)
        return path

    def _use(self, node: _Node) -> None:
        node.frequency += 1
        node.worth = self._leaves.worth(node.frequency, node.cost, node.part.bytes)
        if not node.below:
            self._leaves.place(node, node.worth)

    def _evict(self) -> None:
        node = self._leaves.leave()
        self.bytes -= node.part.bytes
        self.evictions += 1
        above = node.above
        if above is not None:  # it never is: the root is not queued
            del above.below[node.block]
            if not above.below and above is not self._root:
                self._leaves.place(above, above.worth)
