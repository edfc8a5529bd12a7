"""The mend of vLLM's CPU kernels, on a stand-in that errs as they do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from generators.models.cpu_lora import mend  # noqa: E402


def shrink(inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: torch.Tensor, scaling: float = 1.0) -> None:
    output[:] = scaling * torch.einsum("bi,bri->br", inputs, weights[slots])


def test_rows_without_an_adapter_stay_zero_and_the_others_as_they_were() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, inputs = torch.randn(3, 2, 4, generator=generator), torch.randn(4, 4, generator=generator)
    slots = torch.tensor([0, -1, 2, -1])
    expected, found = torch.empty(4, 2), torch.empty(4, 2)
    shrink(inputs, weights, expected, slots, 0.5)
    assert expected[1].abs().max() > 0, "the last slot's"
    defined, used = SimpleNamespace(bgmv_shrink=shrink), SimpleNamespace(bgmv_shrink=shrink)
    mend(defined, used)
    assert defined.bgmv_shrink is used.bgmv_shrink
    used.bgmv_shrink(inputs, weights, found, slots, 0.5)
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert not found[[1, 3]].any()
