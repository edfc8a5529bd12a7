"""Which of many LoRAs to compose: the search is for some twenty, not for hundreds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters import folder as disk
from adapters.lorahub.examples import batches, prompt_text
from rag.core.errors import InputError

if TYPE_CHECKING:
    from adapters.lorahub.objective import Objective
    from adapters.training.data import Answered

MOST = 20
"""As many as the released code draws."""
_TOLD = ("description", "task", "data", "name", "tags")
"""What of a card describes the task."""


def at_random(folders: Sequence[Path], count: int = MOST, seed: int = 0) -> list[Path]:
    """``count`` of ``folders``, without repetition, as the released code does. Folders and seed decide, not their order."""
    _check(folders, count)
    known = sorted(folders)
    return sorted(random.Random(seed).sample(known, min(count, len(known))))


def by_similarity(
    folders: Sequence[Path], examples: Sequence[Answered], encode: Callable[[list[str]], Any], count: int = MOST
) -> list[Path]:
    """The ``count`` whose cards are most like the examples, best first.

    ``encode`` gives an array [texts, dim]; compared is the cosine of a card's vector with the mean of the examples' unit vectors.
    """
    _check(folders, count)
    if not examples:
        raise InputError("there are no examples to compare the cards with")
    cards = _unit(encode([card_text(folder) for folder in folders]))
    task = _unit(encode([f"{prompt_text(example)}\n{example.answer}" for example in examples])).mean(axis=0)
    order = np.argsort(-(cards @ task), kind="stable")
    return [folders[index] for index in order[:count]]


def by_loss(folders: Sequence[Path], objective: Objective, count: int = MOST) -> list[Path]:
    """The ``count`` that, each alone, have the smallest loss on the examples, best first. ``objective`` is of a stack of all ``folders``.

    Costs one evaluation for each folder.
    """
    _check(folders, count)
    size = len(folders)
    losses = [objective.loss([1.0 if other == index else 0.0 for other in range(size)]) for index in range(size)]
    if any(loss != loss for loss in losses):
        bad = [folder.name for folder, loss in zip(folders, losses, strict=True) if loss != loss]
        raise InputError(f"the loss of {', '.join(bad[:3])} is not a number; leave it out")
    return [folders[index] for index in sorted(range(size), key=losses.__getitem__)[:count]]


def by_loss_on(
    model: Any,
    tokenizer: Any,
    folders: Sequence[Path],
    examples: Sequence[Answered],
    count: int = MOST,
    batch: int = 5,
    max_tokens: int = 1024,
) -> list[Path]:
    """As `by_loss`, on ``model``, which is then as it was."""
    from adapters.lorahub.composition import WornStack, read_stack
    from adapters.lorahub.objective import Objective, evaluating

    prepared = batches(model, tokenizer, examples, batch, max_tokens)
    worn = WornStack(model, read_stack(folders))
    try:
        with evaluating(worn.adapted.model):
            return by_loss(folders, Objective(worn, prepared), count)
    finally:
        worn.adapted.remove()


def card_text(folder: Path) -> str:
    """What the card in ``folder`` says about its task, and the folder's name; the name alone where there is no card."""
    card = disk.read_card(folder) if (folder / disk.CARD).is_file() else {}
    told = [_flat(card[key]) for key in _TOLD if card.get(key)]
    return "\n".join([folder.name.replace("-", " ").replace("_", " "), *told])


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(_flat(item) for item in value.values())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _unit(vectors: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    unit: np.ndarray[Any, np.dtype[np.float64]] = array / np.where(norms == 0, 1.0, norms)
    return unit


def _check(folders: Sequence[Path], count: int) -> None:
    if not folders:
        raise InputError("there are no LoRAs to choose from; `rag adapters add` takes them in")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"the number of LoRAs to compose is a whole number from 1, not {count!r}")
