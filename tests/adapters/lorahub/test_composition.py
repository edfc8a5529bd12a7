from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import load
from adapters.folder import CARD, WEIGHTS
from adapters.lorahub.composition import Stack, WornStack, read_stack
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch, InputError
from tests.adapters.lorahub.parts import logits, saved
from tests.adapters.tiny import tiny

ARCHITECTURES = ("llama", "gpt2", "t5")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [saved(tmp_path / f"lora{seed}", seed=seed) for seed in (1, 2, 3)]


def worn(folders: list[Path], on: str = "llama") -> WornStack:
    return WornStack(tiny(on, torch.float64), read_stack(folders))


def state(stack: Stack, weights: list[float]) -> torch.Tensor:
    """All numbers of a composition in a row."""
    return torch.cat([tensor.flatten() for pair in stack.composed(weights).values() for tensor in pair])


@pytest.mark.parametrize("on", ARCHITECTURES)
def test_at_zero_it_is_the_base_model_to_the_last_bit(tmp_path: Path, on: str) -> None:
    wearing = worn([saved(tmp_path / f"lora{seed}", on, seed) for seed in (1, 2)], on)
    base = logits(tiny(on, torch.float64), on)
    assert torch.equal(logits(wearing.adapted.model, on), base)
    wearing.write([0.7, -0.3])
    assert not torch.equal(logits(wearing.adapted.model, on), base)
    wearing.write([0.0, 0.0])
    assert torch.equal(logits(wearing.adapted.model, on), base)


@pytest.mark.parametrize("on", ARCHITECTURES)
def test_with_one_weight_of_1_it_is_that_lora_to_the_last_bit(tmp_path: Path, on: str) -> None:
    folders = [saved(tmp_path / f"lora{seed}", on, seed) for seed in (1, 2, 3)]
    wearing = worn(folders, on)
    for index, folder in enumerate(folders):
        wearing.write([1.0 if other == index else 0.0 for other in range(3)])
        alone = load(tiny(on, torch.float64), folder)
        assert torch.equal(logits(wearing.adapted.model, on), logits(alone.model, on))


def test_w_and_minus_w_are_the_same_model(folders: list[Path]) -> None:
    wearing = worn(folders)
    wearing.write([0.4, -1.1, 0.9])
    there = logits(wearing.adapted.model)
    wearing.write([-0.4, 1.1, -0.9])
    assert torch.equal(logits(wearing.adapted.model), there)


def test_the_state_is_linear_in_w(folders: list[Path]) -> None:
    stack = read_stack(folders)
    v, w = [0.3, -0.2, 1.0], [-1.5, 0.25, 0.5]
    both = [2 * one + other for one, other in zip(v, w, strict=True)]
    torch.testing.assert_close(state(stack, both), 2 * state(stack, v) + state(stack, w), rtol=0, atol=1e-14)


def test_a_lone_lora_at_w_counts_w_squared(folders: list[Path]) -> None:
    stack = read_stack(folders[:1])
    for layer, (a, b) in stack.composed([0.6]).items():
        torch.testing.assert_close(b @ a, 0.36 * (stack.b[layer][0] @ stack.a[layer][0]), rtol=0, atol=1e-14)


def test_the_change_has_the_cross_terms(folders: list[Path]) -> None:
    stack, w = read_stack(folders), [0.5, -0.7, 1.2]
    for layer, (a, b) in stack.composed(w).items():
        pairs = [w[i] * w[j] * stack.b[layer][i] @ stack.a[layer][j] for i in range(3) for j in range(3)]
        torch.testing.assert_close(b @ a, torch.stack(pairs).sum(0), rtol=0, atol=1e-14)


def test_what_is_worn_is_what_is_composed(folders: list[Path]) -> None:
    wearing, w = worn(folders), [0.5, -0.7, 1.2]
    wearing.write(w)
    for layer, module in wearing.adapted.worn.layers().items():  # type: ignore[attr-defined]
        a, b = wearing.stack.composed(w)[layer]
        torch.testing.assert_close(module.lora_A["default"].weight.data, a, rtol=0, atol=1e-14)
        torch.testing.assert_close(module.lora_B["default"].weight.data, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"r": 3}, "r is 2 in the one and 3 in the other"),
        ({"alpha": 8.0}, r"alpha is 4\.0 in the one and 8\.0"),
        ({"rank_stabilised": True}, "rank_stabilised is False in the one and True"),
        ({"targets": ("q_proj",)}, r"targets differ; only .*one has 'model\.layers\.0\.self_attn\.k_proj'"),
        ({"base_seed": 5}, "different base models"),
    ],
)
def test_loras_that_differ_are_named_with_how(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two", **options)
    with pytest.raises(AdapterMismatch, match=says) as caught:
        read_stack([one, two])
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


def test_another_model_is_refused_and_left_alone(folders: list[Path]) -> None:
    model = tiny("llama", torch.float64, seed=5)
    before = logits(model)
    with pytest.raises(AdapterMismatch, match="made for another model"):
        WornStack(model, read_stack(folders))
    assert torch.equal(logits(model), before)
    assert not any("lora" in name for name, _ in model.named_modules())


def test_sizes_are_checked_where_no_fingerprint_tells(tmp_path: Path) -> None:
    folder = saved(tmp_path / "gpt2", "gpt2")
    (folder / CARD).unlink()  # as PEFT would have written it
    with pytest.raises(AdapterError, match="no layer"):
        WornStack(tiny("llama", torch.float64), read_stack([folder]))


def test_folders_of_peft_can_be_composed(folders: list[Path]) -> None:
    expected = worn(folders)
    expected.write([1.0, 0.5, 0.0])
    for folder in folders:
        (folder / CARD).unlink()
    wearing = worn(folders)
    wearing.write([1.0, 0.5, 0.0])
    assert torch.equal(logits(wearing.adapted.model), logits(expected.adapted.model))


def test_damaged_and_missing_loras_are_refused(folders: list[Path], tmp_path: Path) -> None:
    weights = folders[1] / WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(AdapterDamaged, match="checksum"):
        read_stack(folders)
    with pytest.raises(AdapterError, match="there is no adapter"):
        read_stack([folders[0], tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no LoRAs"):
        read_stack([])
