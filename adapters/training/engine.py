"""Device, precision and optimiser, by accelerate; their state as tensors and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.training import randomness
from adapters.training.options import Options
from rag.core.errors import AdapterError, InputError, MissingDependency

if TYPE_CHECKING:
    from adapters.adapted import Adapted

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class Engine:
    """Seeds all generators, moves ``adapted`` to the device that accelerate chooses, and holds AdamW (Loshchilov & Hutter 2019)."""

    def __init__(self, adapted: Adapted, options: Options) -> None:
        try:
            from accelerate.utils import set_seed  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingDependency(f"training needs accelerate ({error}): pip install 'graft-rag[adapters]'") from error
        self._accelerator = _accelerator(options.precision)
        set_seed(options.seed)
        adapted.base.to(self.device)
        adapted.model.to(self.device)
        self._named: dict[str, nn.Parameter] = {}
        self._optimizer: Any = None

    def optimise(self, trained: Mapping[str, nn.Parameter], options: Options) -> None:
        """Begin with these parameters: a method may choose them only when it has looked at examples."""
        self._named = dict(trained)
        optimizer = torch.optim.AdamW(self.parameters, lr=options.lr, weight_decay=options.weight_decay)
        self._optimizer = self._accelerator.prepare(optimizer)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._accelerator.device
        return device

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What trains."""
        return list(self._named.values())

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled up (float16), so that steps may be left out."""
        return self._accelerator.scaler is not None

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a forward pass."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``."""
        self._accelerator.backward(loss)

    def unscale(self) -> None:
        """Give the gradients their true size."""
        self._accelerator.unscale_gradients()

    def step(self, rate: float) -> bool:
        """Take a step with the learning rate ``rate``; False if it was left out because a float16 gradient overflowed."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return not self._optimizer.step_was_skipped

    def clear(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad()

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """The optimiser's tensors as "parameter/name", those of the random generators, and what is no tensor."""
        names, held = list(self._named), self._optimizer.state_dict()["state"]
        moments = {f"{names[number]}/{key}": value for number, entry in held.items() for key, value in entry.items()}
        generators, words = randomness.capture()
        scaler = self._accelerator.scaler.state_dict() if self.scaled else None
        return {"optimizer": moments, "random": generators}, {"random": words, "scaler": scaler}

    def load_state(self, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
        """What `state` gave. Raises `AdapterError` if it is of other parameters."""
        held: dict[int, dict[str, Tensor]] = {}
        numbers = {name: number for number, name in enumerate(self._named)}
        for key, tensor in tensors.get("optimizer", {}).items():
            name, _, part = key.rpartition("/")
            if name not in numbers:
                raise AdapterError(f"the checkpoint has a state for '{name}', which does not train here")
            held.setdefault(numbers[name], {})[part] = tensor
        self._optimizer.load_state_dict({"state": held, "param_groups": self._optimizer.state_dict()["param_groups"]})
        randomness.restore(dict(tensors["random"]), dict(facts["random"]))
        if self.scaled and facts.get("scaler"):
            self._accelerator.scaler.load_state_dict(facts["scaler"])


def _accelerator(precision: str) -> Any:
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    if precision == "float16" and not torch.cuda.is_available():
        raise InputError("training: precision float16 needs a GPU; take float32 or bfloat16")
    AcceleratorState._reset_state()  # it remembers the precision of the first run in a process, and refuses another
    return Accelerator(mixed_precision=_MIXED[precision])
