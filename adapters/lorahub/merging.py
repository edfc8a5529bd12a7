"""Other ways to make one LoRA of several, for comparison: the exact weighted sum of their changes, TIES and DARE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapters.contract import Factors
from adapters.lorahub.composition import Stack
from rag.core.errors import AdapterMismatch, InputError


def weighted_sum(stack: Stack, weights: Sequence[float]) -> Factors:
    """sum_i w_i (alpha / r) B_i A_i, exactly: the factors side by side, at rank N r."""
    _check_weights(stack, weights)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, a in stack.a.items():
        scaled = stack.b[layer] * torch.as_tensor(list(weights), dtype=a.dtype)[:, None, None] * stack.scaling
        pairs[layer] = (a.flatten(0, 1).clone(), torch.cat(list(scaled), dim=1))
    rank = stack.shared.r * len(stack)
    return Factors(rank, float(rank), pairs)


def merged_by_peft(
    model: nn.Module,
    stack: Stack,
    weights: Sequence[float],
    kind: Literal["ties", "dare_linear", "dare_ties"],
    density: float = 0.5,
    seed: int = 0,
) -> Factors:
    """PEFT's ``add_weighted_adapter``: TIES (Yadav et al., NeurIPS 2023), DARE (Yu et al., ICML 2024), on the factors, not their products.

    ``density`` is the share of values that are kept. ``model`` is the base and is given back as it was; DARE drops at random by ``seed``.
    """
    _check_weights(stack, weights)
    if kind not in ("ties", "dare_linear", "dare_ties"):
        raise InputError(f"kind is 'ties', 'dare_linear' or 'dare_ties', not {kind!r}")
    if not 0 < density <= 1:
        raise InputError(f"density is above 0 and at most 1, not {density!r}")
    with torch.random.fork_rng():  # PEFT draws the factors that are filled here, too
        wearing = _Side(model, stack)
        try:
            torch.manual_seed(seed)
            wearing.peft.add_weighted_adapter(wearing.names, list(weights), adapter_name="merged", combination_type=kind, density=density)
            return wearing.factors("merged")
        finally:
            wearing.peft.unload()


class _Side:
    """All LoRAs of a stack in one PEFT model, side by side."""

    def __init__(self, model: nn.Module, stack: Stack) -> None:
        from peft import LoraConfig, get_peft_model

        shared = stack.shared
        config = LoraConfig(
            r=shared.r,
            lora_alpha=shared.alpha,  # type: ignore[arg-type]
            target_modules=sorted(shared.shapes),
            use_rslora=shared.rank_stabilised,
        )
        self.names = [f"lora{index}" for index in range(len(stack))]
        self.peft: Any = get_peft_model(model, config, adapter_name=self.names[0])
        for name in self.names[1:]:
            self.peft.add_adapter(name, config)
        self._base = model
        for index, name in enumerate(self.names):
            self._fill(stack, index, name)

    def _fill(self, stack: Stack, index: int, name: str) -> None:
        with torch.no_grad():
            for layer, module in self._layers().items():
                if module.lora_A[name].weight.shape != stack.a[layer][index].shape:
                    raise AdapterMismatch(f"the LoRAs were made for another model: '{layer}' has other sizes")
                module.lora_A[name].weight.copy_(stack.a[layer][index])
                module.lora_B[name].weight.copy_(stack.b[layer][index])

    def factors(self, name: str) -> Factors:
        """A and B of the adapter ``name``, its scaling in B."""
        pairs = {}
        rank = 0
        for layer, module in self._layers().items():
            a, b = module.lora_A[name].weight.detach().clone(), module.lora_B[name].weight.detach() * float(module.scaling[name])
            pairs[layer], rank = (a, b), a.shape[0]
        return Factors(rank, float(rank), pairs)

    def _layers(self) -> dict[str, Any]:
        from peft.tuners.lora import LoraLayer

        return {name: module for name, module in self._base.named_modules() if isinstance(module, LoraLayer)}


def _check_weights(stack: Stack, weights: Sequence[float]) -> None:
    if len(weights) != len(stack):
        raise InputError(f"there are {len(stack)} LoRAs and {len(weights)} weights; give one weight for each")
