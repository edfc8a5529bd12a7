"""What the model learns from: contexts, what stands before the target, and the target; and several of them as one rectangle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rag.core.errors import InputError

IGNORED = -100
"""A label that is not scored."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """The paper's triple (x, y, c): ``prefix`` x and ``target`` y are the decoder's, ``contexts`` c the encoder's, each by itself."""

    contexts: tuple[Tokens, ...]
    prefix: Tokens
    target: Tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded behind. ``contexts`` and ``contexts_mask``: [all contexts, their longest]; ``places``: [rows, most contexts of a
    row], which context stands where, -1 for none. ``ids``, ``mask`` and ``labels``: [rows, longest], the decoder's.
    """

    contexts: torch.Tensor
    contexts_mask: torch.Tensor
    places: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        """Without padding."""
        return int(self.contexts_mask.sum() + self.mask.sum())


def batch(examples: Sequence[Example], start: int, separator: int, device: torch.device) -> Batch:
    """The decoder's row is ``start``, the prefix, ``separator`` and the target without its last token; only the target is scored.

    A row without contexts cannot stand among others: softmax needs something to attend to. Raises `InputError` for that, for no
    examples, and for an empty context or target.
    """
    numbers = [len(example.contexts) for example in examples]
    if not examples or not all(example.target and all(example.contexts) for example in examples):
        raise InputError("a batch has one example or more, and each of its targets and contexts one token or more")
    if min(numbers) == 0 < max(numbers):
        raise InputError("either each example of a batch has contexts or none has")
    places, taken = [], 0
    for number in numbers:
        places.append([*range(taken, taken + number), *[-1] * (max(numbers) - number)])
        taken += number
    contexts = [context for example in examples for context in example.contexts]
    rows = [(start, *example.prefix, separator, *example.target[:-1]) for example in examples]
    labels = [(*[IGNORED] * (len(example.prefix) + 1), *example.target) for example in examples]
    return Batch(
        rectangle(contexts, 0, device),
        rectangle([[1] * len(context) for context in contexts], 0, device),
        torch.tensor(places, dtype=torch.long, device=device),
        rectangle(rows, 0, device),
        rectangle([[1] * len(row) for row in rows], 0, device),
        rectangle(labels, IGNORED, device),
    )


def rectangle(rows: Sequence[Sequence[int]], filling: int, device: torch.device) -> torch.Tensor:
    """``rows`` filled behind to the longest of them."""
    longest = max(map(len, rows), default=0)
    filled = [[*row, *[filling] * (longest - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.long, device=device).view(len(rows), longest)


def drawn(number: int, size: int, seed: int, step: int) -> list[int]:
    """Which of ``number`` examples make the batch of ``step``: epochs are shuffled by seed alone, so that a resumed run finds its place.

    What is left at an epoch's end is a smaller batch.
    """
    epoch, place = divmod(step, -(-number // size))
    order = list(range(number))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order[place * size : (place + 1) * size]
