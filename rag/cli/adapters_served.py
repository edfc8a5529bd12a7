"""What ``rag adapters load`` does: an adapter of the registry, in a form that vLLM takes, on a running server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import folder as disk
from generators.models.served_adapter import check, lasting_copy, made_once, place_of_copy
from rag.core.errors import AdapterError, InputError

if TYPE_CHECKING:
    from adapters.registry import Registry
    from generators.models.vllm import VLLM

_LOST = 1e-6
"""Share of a layer's change that rounding may take."""


def put_on(model: VLLM, store: Registry, name: str, max_rank: int, targets: Sequence[str] | None, base: str | None) -> dict[str, Any]:
    """Load the adapter ``name`` of ``store`` on the server of ``model``, and tell what was done.

    ``base`` is the model it was made for (None: the one that its card names), which is loaded where the adapter has to be written as plain
    LoRA. Raises `AdapterError` and its kinds with the reason before anything is sent; `InputError` if the server has another of this name.
    """
    folder = store.path(name)
    exported = _to_export(folder, store, name)
    path = _exported(folder, store, name, max_rank, targets, base) if exported else _copied(folder, max_rank, targets)
    there = model.served().get(name)
    if there not in (None, str(path)):
        raise InputError(
            f"{model.url} serves another '{name}' already, from {there}: `rag adapters unload {name} --url {model.url}` first;"
            " calls in flight end with what they began with"
        )
    if there is None:
        model.load_adapter(name, path, max_rank, targets)
    return {"name": name, "url": model.url, "folder": str(path), "exported": exported, "was_loaded": there is not None}


def _copied(folder: Path, max_rank: int, targets: Sequence[str] | None) -> Path:
    check(folder, max_rank, targets)
    return lasting_copy(folder)


def _to_export(folder: Path, store: Registry, name: str) -> bool:
    """Whether it is another method than LoRA that can be written as LoRA. DoRA, which PEFT counts as LoRA, loses something by it."""
    return disk.read_config(folder).get("peft_type") != "LORA" and "lora" in store.show(name)[1].get("exports", ())


def _exported(folder: Path, store: Registry, name: str, max_rank: int, targets: Sequence[str] | None, base: str | None) -> Path:
    target = made_once(place_of_copy(folder), lambda made: _export(store, name, base, made))
    check(target, max_rank, targets)
    return target


def _export(store: Registry, name: str, base: str | None, out: Path) -> None:
    from generators.models.embedded import without_progress_bars
    from rag.cli.bases import load_base

    chosen = base or store.show(name)[0].base
    if not chosen:
        raise InputError(f"the card of '{name}' does not name its base model; give it with --base, to write the adapter as plain LoRA")
    with without_progress_bars():
        factors = store.export(name, "lora", load_base(chosen)[0], out)
    if factors is not None and factors.residual > _LOST:
        raise AdapterError(
            f"'{name}' as plain LoRA leaves out up to {factors.residual:.2%} of a layer's change, so it is not done unasked:"
            f" rag adapters export {name} lora --out FOLDER, then rag adapters add FOLDER --name OTHER and load that"
        )
