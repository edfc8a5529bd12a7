"""What the registry writes when it takes an adapter in: read, checked, and with a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import folder as disk
from adapters.methods import build
from adapters.registry.lora_folder import LoraFolder, describe, inspect, tensor_names
from rag.core.errors import AdapterError, AdapterMismatch, ConfigError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import State


@dataclass(frozen=True)
class Taken:
    """The parts of `adapters.folder.write`."""

    config: Mapping[str, Any]
    state: State
    head: State
    card: Mapping[str, Any]


def take_in(source: Path, base: nn.Module | None, base_name: str) -> Taken:
    """The adapter in ``source``, checked against ``base`` where it is given. Raises `AdapterError` and its kinds."""
    if not source.is_dir():
        raise AdapterError(f"{source} is no folder; an adapter is a folder with {disk.CONFIG} and {disk.WEIGHTS}")
    if not (source / disk.CARD).is_file():
        return _from_peft(source, base, base_name)
    card = disk.read_card(source)
    if base is None or card["base"].get("fingerprint"):
        return _from_graft(source, card, base)
    disk.read_weights(source)  # its checksums; the card was written when the base was not known
    return _from_peft(source, base, base_name)


def _from_graft(source: Path, card: Mapping[str, Any], base: nn.Module | None) -> Taken:
    state, head = disk.read_weights(source)
    config = disk.read_config(source)
    if base is not None:
        from adapters.fingerprint import fingerprint

        expected, found = card["base"]["fingerprint"], fingerprint(base, card.get("head", ()))
        if expected != found:
            raise AdapterMismatch(f"{source} was made for another base model (fingerprint {expected[:12]}, not {found[:12]})")
    return Taken(config, state, head, {key: value for key, value in card.items() if key not in ("files", "format")})


def _from_peft(source: Path, base: nn.Module | None, base_name: str) -> Taken:
    found = inspect(source)
    state = disk.read_safetensors(source / disk.WEIGHTS)
    config = disk.read_config(source)
    describe(source, config, {name: tuple(tensor.shape) for name, tensor in state.items()})
    identity = ""
    if base is not None:
        from adapters.fingerprint import fingerprint

        _check_fits(source, found, base)
        identity = fingerprint(base)
    name, arguments = _method(source, found)
    card: dict[str, Any] = {
        "taken_from": "PEFT",
        "method": name,
        "arguments": arguments,
        "base": {"name": base_name or found.base, "fingerprint": identity},
        "head": [],
    }
    if found.bias != "none":
        card["note"] = f"bias is {found.bias!r} in its configuration: PEFT wears it, graft and vLLM do not"
    return Taken(config, state, {}, card)


def _method(source: Path, found: LoraFolder) -> tuple[str, dict[str, Any]]:
    shared = {"r": found.r, "alpha": found.alpha, "dropout": found.dropout, "targets": list(found.shapes)}
    name, given = ("DoRA", shared) if found.dora else ("LoRA", shared)
    if found.rank_stabilised:
        given = {**shared, "rank_stabilised": True}
    try:
        build(name, given)
    except ConfigError as error:
        raise AdapterError(f"{source}: {error}") from error
    return name, given


def _check_fits(source: Path, found: LoraFolder, base: nn.Module) -> None:
    from adapters.anatomy import width

    modules = dict(base.named_modules())
    for layer, ((_, wide), (high, _)) in found.shapes.items():
        if layer not in modules:
            raise AdapterMismatch(f"{source}: {type(base).__name__} has no layer '{layer}', which {tensor_names(layer)[0]} is for")
        if width(modules[layer]) != (wide, high):
            raise AdapterMismatch(f"{source}: '{layer}' maps {wide} values to {high} there, and {width(modules[layer])} in this model")
