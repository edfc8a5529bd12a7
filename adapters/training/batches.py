"""The order of training: examples of like length together, shuffled by seed and epoch alone, so that a resumed run finds its place."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from adapters.training.tasks import Example
from rag.core.errors import InputError

_BUCKET = 50
"""Batches whose examples are sorted together: enough that rows of a batch are alike, few enough that epochs differ."""


class Order:
    """Which examples make which step. A step is ``accumulate`` batches of ``size``; the last of an epoch may be smaller.

    ``least`` is the number of rows a batch needs: a rest of fewer joins the batch before it.
    """

    def __init__(self, examples: Sequence[Example], size: int, accumulate: int = 1, seed: int = 0, least: int = 1) -> None:
        if len(examples) < least:
            raise InputError(f"training needs {least} examples or more; the data has {len(examples)}")
        if size < least:
            raise InputError(f"training: batch is {least} or more for an encoder, not {size}: others of the batch are its negatives")
        self._examples = examples
        self._size = size
        self._accumulate = accumulate
        self._seed = seed
        self._least = least

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-len(self._cut(range(len(self._examples)))) // self._accumulate)

    def steps(self, start: int = 0) -> Iterator[list[list[Example]]]:
        """The batches of step ``start``, of the step behind it, and so on without end."""
        epoch, skip = divmod(start, self.per_epoch)
        while True:
            batches = self.epoch(epoch)
            groups = [batches[at : at + self._accumulate] for at in range(0, len(batches), self._accumulate)]
            yield from groups[skip:]
            epoch, skip = epoch + 1, 0

    def epoch(self, number: int) -> list[list[Example]]:
        """All batches of one epoch; each example is in one of them."""
        drawn = random.Random(f"{self._seed} {number}")
        order = list(range(len(self._examples)))
        drawn.shuffle(order)
        bucket = self._size * _BUCKET
        alike: list[int] = []
        for at in range(0, len(order), bucket):
            alike += sorted(order[at : at + bucket], key=lambda index: self._examples[index].length)
        batches = self._cut(alike)
        drawn.shuffle(batches)
        return [[self._examples[index] for index in batch] for batch in batches]

    def shuffled(self) -> Iterator[Example]:
        """Every example once, for a method that looks at examples before the first step."""
        order = list(range(len(self._examples)))
        random.Random(f"{self._seed} first look").shuffle(order)
        return (self._examples[index] for index in order)

    def _cut(self, order: Sequence[int]) -> list[list[int]]:
        batches = [list(order[at : at + self._size]) for at in range(0, len(order), self._size)]
        if len(batches) > 1 and len(batches[-1]) < self._least:
            rest = batches.pop()
            batches[-1] += rest
        return batches


def in_order(examples: Sequence[Example], size: int, least: int = 1) -> list[Sequence[Example]]:
    """Batches for an evaluation, by length: the least padding. A rest of fewer than ``least`` joins the batch before it."""
    alike = sorted(examples, key=lambda example: example.length)
    batches = [alike[at : at + size] for at in range(0, len(alike), size)]
    if len(batches) > 1 and len(batches[-1]) < least:
        rest = batches.pop()
        batches[-1] = [*batches[-1], *rest]
    return list(batches)
