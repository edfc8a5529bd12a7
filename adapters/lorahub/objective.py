"""What is minimised: the loss on the few examples, and a penalty on the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapters.lorahub.composition import WornStack
from adapters.training.losses import IGNORED, aligned_loss, causal_loss

Norm = Literal["mean", "sum"]


def cross_entropy(model: Any, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Mean over all answer tokens of -log p, in nats.

    It does not depend on how the examples are cut into batches. The released code divides the sum of the batches' means by the number of
    examples, so that its balance with the penalty changes with the batch.
    """
    own_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
    total, tokens = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            labels = batch["labels"]
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            logits = model(**inputs, labels=labels).logits if own_decoder else model(**inputs, use_cache=False).logits
            total += float(aligned_loss(logits, labels) if own_decoder else causal_loss(logits, labels))
            tokens += int(((labels if own_decoder else labels[:, 1:]) != IGNORED).sum())
    return total / tokens


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
