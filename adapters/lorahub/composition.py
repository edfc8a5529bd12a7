"""N LoRAs of one shape, stacked, so that composing them is one weighted sum for each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters import folder as disk
from adapters.adapted import Adapted, adapt
from adapters.registry.lora_folder import LoraFolder, read, tensor_names
from adapters.reparameterised.lora.config import LoRA
from rag.core.errors import AdapterError, AdapterMismatch, InputError


@dataclass(frozen=True)
class Module:
    """One of the LoRAs: where it came from."""

    name: str
    checksum: str
    """SHA-256 of its weights' file, "" where its folder has no card."""
    fingerprint: str
    """Of its base model, "" if it is not known."""


class Stack:
    """``a[layer]`` is A [N, r, in] and ``b[layer]`` B [N, out, r] of the N LoRAs, whose r, alpha and layers are the same."""

    def __init__(self, modules: Sequence[Module], shared: LoraFolder, a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
        self.modules = tuple(modules)
        self.shared = shared
        self.a = a
        self.b = b

    def __len__(self) -> int:
        return len(self.modules)

    @property
    def fingerprint(self) -> str:
        """Of the base model, "" if none of the LoRAs tells."""
        return next((module.fingerprint for module in self.modules if module.fingerprint), "")

    @property
    def scaling(self) -> float:
        """alpha / r, or alpha / sqrt(r) where rank-stabilised."""
        return self.shared.alpha / (self.shared.r**0.5 if self.shared.rank_stabilised else self.shared.r)

    def composed(self, weights: Sequence[float]) -> dict[str, tuple[Tensor, Tensor]]:
        """LoRAHub's composition: of each layer A = sum_i w_i A_i and B = sum_i w_i B_i, with the same w for both.

        So the change is (alpha / r) sum_ij w_i w_j B_i A_j: a lone LoRA at w counts w squared, and w and -w are the same model
        (Huang et al., COLM 2024; released code, ``get_final_weights``).
        """
        return {layer: (_weighted(self.a[layer], weights), _weighted(self.b[layer], weights)) for layer in self.a}


def read_stack(folders: Sequence[str | Path]) -> Stack:
    """The LoRAs in ``folders`` (PEFT's or graft's). Raises `AdapterMismatch` that names two that differ and how, and as `read`."""
    if not folders:
        raise InputError("there are no LoRAs to compose; name at least one folder")
    paths = [Path(folder) for folder in folders]
    read_ones = [read(path) for path in paths]
    described = [found for found, _ in read_ones]
    modules = [_module(path) for path in paths]
    for path, found in zip(paths, described, strict=True):
        if not found.plain:
            what = "it is DoRA" if found.dora else f"its bias is {found.bias!r}"
            raise AdapterError(f"{path} is no plain LoRA ({what}), so it cannot be composed; write it as plain LoRA first")
    for index in range(1, len(paths)):
        _check_alike(paths[0], described[0], paths[index], described[index])
    _check_one_base(paths, modules)
    states = [state for _, state in read_ones]
    names = {layer: tensor_names(layer) for layer in described[0].shapes}
    return Stack(
        modules,
        described[0],
        {layer: torch.stack([state[a] for state in states]) for layer, (a, _) in names.items()},
        {layer: torch.stack([state[b] for state in states]) for layer, (_, b) in names.items()},
    )


class WornStack:
    """A stack on a model: one PEFT LoRA, into which each `write` puts a weighted sum."""

    def __init__(self, model: nn.Module, stack: Stack) -> None:
        """Raises `AdapterMismatch` if the LoRAs were made for another model."""
        shared = stack.shared
        self.stack = stack
        self.adapted: Adapted = adapt(model, LoRA(shared.r, shared.alpha, 0.0, tuple(shared.shapes), shared.rank_stabilised), head=())
        try:
            self._check_base()
            self._slots = [slot for layer, module in self._layers().items() for slot in self._slots_of(layer, module)]
        except BaseException:
            self.adapted.remove()
            raise
        self.write([0.0] * len(stack))

    def write(self, weights: Sequence[float]) -> None:
        """Compose: the model answers as `Stack.composed` says."""
        with torch.no_grad():
            for stacked, parameter in self._slots:
                torch.mv(stacked, _vector(weights, stacked), out=parameter.data.view(-1))

    def _slots_of(self, layer: str, module: Any) -> list[tuple[Tensor, nn.Parameter]]:
        pairs = ((self.stack.a[layer], module.lora_A["default"].weight), (self.stack.b[layer], module.lora_B["default"].weight))
        for stacked, parameter in pairs:
            if stacked.shape[1:] != parameter.shape:
                raise AdapterMismatch(
                    f"the LoRAs were made for another model: '{layer}' needs factors of the shape {tuple(parameter.shape)},"
                    f" and theirs have {tuple(stacked.shape[1:])}"
                )
        return [(stacked.flatten(1).t().to(parameter), parameter) for stacked, parameter in pairs]

    def _layers(self) -> dict[str, Any]:
        found: dict[str, Any] = self.adapted.worn.layers()  # type: ignore[attr-defined]
        missing = sorted(set(self.stack.a) - set(found))
        if missing:
            raise AdapterMismatch(f"the LoRAs were made for another model: this one has no layer '{missing[0]}'")
        return found

    def _check_base(self) -> None:
        expected, found = self.stack.fingerprint, self.adapted.identity
        if expected and expected != found:
            raise AdapterMismatch(
                f"the LoRAs were made for another model (fingerprint {expected[:12]}) than this one ({found[:12]});"
                " choose LoRAs of this model, or load theirs"
            )


def _weighted(stacked: Tensor, weights: Sequence[float]) -> Tensor:
    total: Tensor = torch.tensordot(_vector(weights, stacked), stacked, dims=1)
    return total


def _vector(weights: Sequence[float], like: Tensor) -> Tensor:
    return torch.as_tensor(list(weights), dtype=like.dtype, device=like.device)


def _module(folder: Path) -> Module:
    name = folder.resolve().name
    if not (folder / disk.CARD).is_file():
        return Module(name, "", "")
    card = disk.read_card(folder)
    return Module(name, str(card["files"].get(disk.WEIGHTS, "")), str(card["base"].get("fingerprint") or ""))


def _check_alike(first: Path, one: LoraFolder, second: Path, two: LoraFolder) -> None:
    for what in ("r", "alpha", "rank_stabilised"):
        a, b = getattr(one, what), getattr(two, what)
        if a != b:
            raise AdapterMismatch(f"{first} and {second} cannot be composed: {what} is {a} in the one and {b} in the other")
    different = sorted(set(one.shapes) ^ set(two.shapes))
    if different:
        owner = first if different[0] in one.shapes else second
        raise AdapterMismatch(f"{first} and {second} cannot be composed: their targets differ; only {owner} has '{different[0]}'")
    for layer, shapes in one.shapes.items():
        if shapes != two.shapes[layer]:
            raise AdapterMismatch(f"{first} and {second} cannot be composed: '{layer}' has the shapes {shapes} and {two.shapes[layer]}")


def _check_one_base(paths: Sequence[Path], modules: Sequence[Module]) -> None:
    known = [(path, module.fingerprint) for path, module in zip(paths, modules, strict=True) if module.fingerprint]
    for path, identity in known[1:]:
        if identity != known[0][1]:
            raise AdapterMismatch(
                f"{known[0][0]} and {path} cannot be composed: they were made for different base models"
                f" (fingerprints {known[0][1][:12]} and {identity[:12]})"
            )
