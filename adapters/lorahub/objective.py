"""What is minimised: the loss on the few examples, and a penalty on the weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as nll

from adapters.lorahub.composition import WornStack
from adapters.training.losses import IGNORED

Norm = Literal["mean", "sum"]


def cross_entropy(model: Any, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Mean over all answer tokens of -log p, in nats.

    It does not depend on how the examples are cut into batches. The released code divides the sum of the batches' means by the number of
    examples, so that its balance with the penalty changes with the batch.
    """
    total, tokens = 0.0, 0
    for batch in batches:
        losses, counts = answer_losses(model, batch)
        total += float(losses.sum())
        tokens += int(counts.sum())
    return total / tokens


def answer_losses(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of each row of ``batch`` the sum of -log p over its answer tokens, in nats, and how many these are: [rows] each, no gradients."""
    with torch.no_grad():
        logits, targets = _at_answers(model, batch)
        scored = targets != IGNORED
        losses = nll(_exact(logits[scored]), targets[scored], reduction="none")
        each = losses.new_zeros(targets.shape)
        each[scored] = losses
        return each.sum(1), scored.sum(1)


def _at_answers(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [rows, places, V] at the places where an answer token of some row is foretold, and these tokens [rows, places].

    The rows of a prompt are most of a batch, and the output head with its V columns is a large part of a small model: they never meet,
    where the model's ``forward`` knows ``logits_to_keep``.
    """
    inputs, labels = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}, batch["labels"]
    if getattr(model.config, "is_encoder_decoder", False):
        return model(**inputs, labels=labels).logits, labels
    following = labels[:, 1:]
    places = (following != IGNORED).any(0).nonzero().flatten()
    if _keeps_some(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=places).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, places]
    return logits, following[:, places]


def _keeps_some(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def penalty(weights: Sequence[float], norm: Norm) -> float:
    """mean |w_i| (released code, ``default_l1_regularization``), or sum |w_i| (paper)."""
    total = sum(abs(weight) for weight in weights)
    return total / len(weights) if norm == "mean" else total


class Objective:
    """f(w) = cross-entropy of the examples under the composition w + ``strength`` · R(w). Smaller is better; no gradients."""

    def __init__(self, worn: WornStack, batches: Sequence[Mapping[str, Tensor]], strength: float = 0.05, norm: Norm = "mean") -> None:
        self._worn = worn
        self._batches = batches
        self._strength = strength
        self._norm: Norm = norm

    def __call__(self, weights: Sequence[float]) -> float:
        """One weighted sum and one forward pass of the batches."""
        return self.loss(weights) + self._strength * penalty(weights, self._norm)

    def loss(self, weights: Sequence[float]) -> float:
        """The cross-entropy alone."""
        self._worn.write(weights)
        return cross_entropy(self._worn.adapted.model, self._batches)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` without dropout; each module's mode is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
