"""The diagonal of the empirical Fisher information: which entries of the parameters the loss depends on most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from rag.core.errors import AdapterError


class Fisher:
    """F = mean over N examples of (d loss / d theta)^2, a number for each entry of ``parameters``.

    The gradient is squared for each example before the mean, and the labels are taken as given, "empirical": Sung, Nair and Raffel,
    "Training Neural Networks with Fixed Sparse Masks", NeurIPS 2021. Holds 4 bytes an entry (float32) on the first parameter's device.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._sizes = [parameter.numel() for parameter in self._parameters.values()]
        device = next(iter(self._parameters.values())).device
        self._sum = torch.zeros(sum(self._sizes), dtype=torch.float32, device=device)
        self._count = 0

    def measure(self, losses: Iterable[Tensor]) -> None:
        """Add each of ``losses``, the scalar loss of one example with its graph.

        One backward pass and one set of gradients at a time. Raises `AdapterError` if there is no loss, or one that is not finite.
        """
        for loss in losses:
            self._add(loss)
        if not self._count:
            raise AdapterError("the Fisher information needs at least one training example, and there is none")

    def _add(self, loss: Tensor) -> None:
        self._count += 1
        gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
        finite = torch.isfinite(loss.detach()).all()
        for total, gradient in zip(torch.split(self._sum, self._sizes), gradients, strict=True):
            if gradient is None:
                continue
            squared = gradient.detach().to(total.device, torch.float32).square().reshape(-1)
            finite = finite.to(total.device) & torch.isfinite(squared.sum())
            total.add_(squared)
        if not finite:
            raise AdapterError(
                f"the Fisher information of example {self._count}: its loss ({loss.item():g}) or a squared gradient is not finite; leave"
                f" the example out, or load the model in float32"
            )

    def mean(self) -> dict[str, Tensor]:
        """F by name, float32 in the parameter's shape."""
        parts = torch.split(self._sum / self._count, self._sizes)
        return {name: part.view(of.shape) for (name, of), part in zip(self._parameters.items(), parts, strict=True)}

    def largest(self, count: int) -> dict[str, Tensor]:
        """Where the ``count`` largest entries of all are: a boolean mask in the parameter's shape; one that has none is left out.

        Exactly ``count`` are true; among equals at the edge the choice is arbitrary. Costs one selection over all n entries, not a sort for
        each tensor: another n bytes for the mask, and on the CPU up to 16 n bytes inside `torch.topk`.
        """
        chosen = torch.zeros(self._sum.numel(), dtype=torch.bool, device=self._sum.device)
        chosen[self._sum.topk(count, sorted=False).indices] = True
        masks: dict[str, Tensor] = {}
        for (name, of), part in zip(self._parameters.items(), torch.split(chosen, self._sizes), strict=True):
            if part.any():
                masks[name] = part.view(of.shape).to(of.device, copy=True)
        return masks
