"""What parameters were before they were trained in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Originals:
    """Copies on the CPU of ``parameters``, by name: as much memory there as they take themselves."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._values = {name: _copy(parameter) for name, parameter in self._parameters.items()}

    def of(self, name: str) -> Tensor:
        """The original on the parameter's device and in its dtype; on the CPU it is the copy itself, not to be written to."""
        return self._values[name].to(self._parameters[name])

    def hold(self, names: Iterable[str]) -> None:
        """Hold ``names`` only. A parameter that was not held is copied as it is now: it must not have been trained."""
        self._values = {name: self._values[name] if name in self._values else _copy(self._parameters[name]) for name in names}

    def put_back(self) -> None:
        """Make every held parameter what it was, bit for bit."""
        with torch.no_grad():
            for name, value in self._values.items():
                self._parameters[name].copy_(value)


def _copy(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().to("cpu", copy=True)
