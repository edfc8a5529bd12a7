from __future__ import annotations

import math

import torch

from adapters.training.losses import IGNORED, aligned_loss, causal_loss, classification_loss, contrastive_loss, mean_pool
from tests.adapters.tiny import batch_for, tiny


def test_the_causal_loss_is_that_of_transformers() -> None:
    batch = batch_for("llama")
    out = tiny("llama", torch.float64)(**batch)
    scored = int((batch["labels"][:, 1:] != IGNORED).sum())
    torch.testing.assert_close(causal_loss(out.logits, batch["labels"]) / scored, out.loss.double(), rtol=0, atol=1e-6)  # theirs is float32


def test_vectors_in_front_of_the_input_are_not_scored() -> None:
    logits, labels = torch.randn(2, 5, 7, dtype=torch.float64), torch.randint(0, 7, (2, 5))
    longer = torch.cat([torch.randn(2, 3, 7, dtype=torch.float64), logits], 1)
    assert torch.equal(causal_loss(longer, labels), causal_loss(logits, labels))


def test_the_loss_of_a_decoder_is_that_of_transformers() -> None:
    batch = batch_for("t5")
    out = tiny("t5", torch.float64)(**batch)
    torch.testing.assert_close(aligned_loss(out.logits, batch["labels"]) / batch["labels"].numel(), out.loss, rtol=0, atol=1e-12)


def test_the_classification_loss_is_that_of_transformers() -> None:
    batch = batch_for("bert")
    out = tiny("bert", torch.float64)(**batch)
    torch.testing.assert_close(classification_loss(out.logits, batch["labels"]) / 3, out.loss, rtol=0, atol=1e-12)


def test_pooling_leaves_padding_out() -> None:
    hidden = torch.randn(2, 4, 8, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    pooled = mean_pool(hidden, mask)
    torch.testing.assert_close(pooled[1], hidden[1, :2].mean(0) / hidden[1, :2].mean(0).norm())
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(2, dtype=torch.float64))
    changed = hidden.clone()
    changed[1, 2:] += 100
    assert torch.equal(mean_pool(changed, mask), pooled)
    assert torch.equal(mean_pool(torch.cat([torch.randn(2, 3, 8, dtype=torch.float64), hidden], 1), mask), pooled)


def test_the_contrastive_loss_by_hand() -> None:
    questions = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    passages = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]], dtype=torch.float64)
    all_of_them = torch.ones(2, 3, dtype=torch.bool)
    first = -math.log(math.exp(20) / (math.exp(20) + math.exp(12) + 1))
    second = -math.log(math.exp(16) / (1 + math.exp(16) + math.exp(-20)))
    assert math.isclose(float(contrastive_loss(questions, passages, all_of_them)), first + second, abs_tol=1e-12)
    without = torch.tensor([[True, False, True], [True, True, True]])
    first = -math.log(math.exp(20) / (math.exp(20) + 1))
    assert math.isclose(float(contrastive_loss(questions, passages, without)), first + second, abs_tol=1e-12)


def test_half_precision_is_summed_in_single() -> None:
    logits, labels = torch.randn(1, 5, 7, dtype=torch.bfloat16), torch.randint(0, 7, (1, 5))
    assert causal_loss(logits, labels).dtype == torch.float32
