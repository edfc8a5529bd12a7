"""Losses, each summed over what it counts: answer tokens, rows. So batches that are gathered into one step weigh as one large batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

IGNORED = -100
"""A label that is not scored."""


def causal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of the tokens ``labels`` [B, T] under ``logits`` [B, T or more, V]: the logits at t foretell token t + 1.

    Logits before the last T positions belong to trained vectors in front of the input. Labels of `IGNORED` are not scored.
    """
    return _summed(logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:])


def aligned_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The same where a decoder of its own has shifted its input already: the logits at t foretell token t."""
    return _summed(logits[:, -labels.shape[1] :], labels)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of the classes ``labels`` [B] under ``logits`` [B, classes]."""
    return cross_entropy(_exact(logits), labels, reduction="sum")


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Unit vectors [B, d]: the mean of ``hidden`` [B, T or more, d] over the tokens of ``mask`` [B, T]."""
    own = _exact(hidden[:, -mask.shape[1] :])
    weights = mask.unsqueeze(-1).to(own.dtype)
    return normalize((own * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=-1)


def contrastive_loss(questions: Tensor, passages: Tensor, compared: Tensor, scale: float = 20.0) -> Tensor:
    """Negative log-likelihood of each question's own passage among all of the batch (InfoNCE with in-batch negatives).

    ``questions`` [B, d] and ``passages`` [N, d] are unit vectors, passage i belongs to question i, and all others of ``compared`` [B, N]
    (boolean) are its negatives. ``scale`` is 1 / temperature: 20 as in sentence-transformers' MultipleNegativesRankingLoss, after Henderson
    et al. 2017 (arXiv 1705.00652).
    """
    scores = scale * questions @ passages.T
    own = torch.arange(len(questions), device=scores.device)
    return cross_entropy(scores.masked_fill(~compared, -torch.inf), own, reduction="sum")


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    scored = labels != IGNORED  # rows of the whole vocabulary are large: only those that count are copied
    return cross_entropy(_exact(logits[scored]), labels[scored], reduction="sum")


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
